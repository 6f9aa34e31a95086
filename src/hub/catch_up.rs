//! Brings a resuming connection from the client's position to its shard's: a cursor on the
//! tenant's log that reads one slice at a time, when the connection is granted a quantum, and
//! only as much as the outbox has room for. So neither the shard nor the tenant's lock is held
//! up.
//!
//! 1. Counting the events to replay. The result is complete or a refusal: if one of them is
//!    evicted before the client is told, the whole replay is refused.
//! 2. Replaying these events, up to the confirmed position.
//! 3. Following: the events since, for all topics of the connection, up to the position that the
//!    shard has delivered. In the step that reaches it the connection becomes live.
//!
//! Meanwhile the outbox counts the events that the shard delivers as pending from the log: the
//! cursor finds exactly those, less those of topics that the connection loses meanwhile. No topic
//! is added.
//!
//! A connection that loses many topics at once only follows the log, while they are removed from
//! the index.

use std::{
    mem,
    ops::ControlFlow,
    sync::Arc,
    task::{Context, Poll, ready},
};

use sidewire_protocol::{Position, Topic};

use super::{
    large_json::JsonRendering,
    membership::{ReplayFrame, SubscribeError, TenantMember},
    read_slice::ReadSlice,
    subscriptions::SubscriptionMap,
    tenant::LogSpan,
};
use crate::{
    event::{Event, JsonFrame, NoJson},
    log::ReplayGap,
    outbox::OutboundFrame,
    scheduler::{Cost, WorkTicket},
};

/// A connection that is catching up from the client's position to the shard's.
#[derive(Debug)]
pub(super) struct CatchUp {
    /// The topics of the Subscribe, and those of the token if they are replayed too.
    topics: SubscriptionMap<()>,
    /// True if the connection's implicit topics are replayed too.
    implicit: bool,
    /// The offset from which the client resumes.
    resume_from: u64,
    /// The connection's position when the Subscribe was processed.
    position: Position,
    /// The offset up to which the log has been read.
    cursor: u64,
    phase: CatchUpPhase,
    /// Its ticket among the tenant's tasks that wait to work.
    ticket: Option<WorkTicket>,
    json: NextJson,
    has_begun: bool,
}

/// The JSON of the next event, if another thread renders it.
#[derive(Debug, Default)]
enum NextJson {
    #[default]
    None,
    Rendering(JsonRendering),
    Rendered(Result<Arc<JsonFrame>, NoJson>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CatchUpPhase {
    Counting { found: u64 },
    Replaying { left: u64 },
    Following,
}

/// A Subscribe that has taken effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscribeConfirmation {
    /// The connection's position when the Subscribe was processed. All later events of its topics
    /// will be in its outbox.
    pub position: Position,
    /// The number of events that will be replayed up to that position, if the client resumes, or
    /// the reason for which it cannot.
    pub resumed: Option<Result<u64, ReplayGap>>,
}

/// The progress of a Subscribe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscribeProgress {
    /// The Subscribe must be confirmed or refused now, before the next step.
    Answer(Result<SubscribeConfirmation, SubscribeError>),
    /// More is left to do, once the connection is scheduled again and its outbox is half free.
    More,
    /// The connection receives new events as they are published.
    Live,
    /// Events that the connection must still receive have left the log: it has to be closed.
    Overtaken,
    /// An event that the connection must receive cannot be written as JSON: it has to be closed.
    NoJson(NoJson),
}

impl CatchUp {
    pub(super) fn new(
        topics: impl IntoIterator<Item = Topic>,
        implicit: bool,
        resume_from: u64,
        position: Position,
    ) -> Self {
        Self {
            topics: topics.into_iter().collect(),
            implicit,
            resume_from,
            position,
            cursor: resume_from,
            phase: CatchUpPhase::Counting { found: 0 },
            ticket: None,
            json: NextJson::None,
            has_begun: false,
        }
    }

    /// Creates the catch-up of a connection that has received everything up to `position`.
    pub(super) fn following(position: Position) -> Self {
        Self {
            phase: CatchUpPhase::Following,
            has_begun: true,
            ..Self::new([], false, position.offset, position)
        }
    }

    /// Returns true while the replay is being counted or queued.
    pub(super) fn replays(&self) -> bool {
        self.phase != CatchUpPhase::Following
    }

    /// Returns true if the replay covers one of the topics.
    pub(super) fn replays_any(&self, topics: &[Topic]) -> bool {
        self.replays() && topics.iter().any(|topic| self.topics.contains(topic))
    }

    /// Returns true if a slice has been run.
    pub(super) fn has_started(&self) -> bool {
        self.has_begun
    }

    /// Waits until the next event is rendered, if another thread renders it.
    pub(super) fn poll_rendered(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let NextJson::Rendering(rendering) = &mut self.json {
            let rendered = ready!(rendering.poll(context));
            self.json = NextJson::Rendered(rendered);
        }
        Poll::Ready(())
    }

    /// Gives up its place among the tenant's tasks that wait to work, until it may continue again.
    pub(super) fn postpone(&mut self) {
        self.ticket = None;
    }

    /// Returns true if the connection may continue now. If not, it is nudged when it is
    /// scheduled, or when its outbox is half free.
    pub(super) fn can_continue(&mut self, member: &TenantMember) -> bool {
        self.begin_slice(member).is_some()
    }

    /// Runs one slice, if the connection [may continue](Self::can_continue).
    pub(super) fn run_slice(&mut self, member: &mut TenantMember) -> Option<SubscribeProgress> {
        let mut slice = self.begin_slice(member)?;
        self.has_begun = true;
        let progress = self.run_step(member, &mut slice);
        member.charge(slice.cost());
        if progress == SubscribeProgress::More {
            // Joins the end of the queue next time.
            self.ticket = None;
        }
        Some(progress)
    }

    fn begin_slice(&mut self, member: &TenantMember) -> Option<ReadSlice> {
        let is_rendering = matches!(self.json, NextJson::Rendering(_));
        // Lost topics leave the index even if the client does not read.
        let clears = !self.replays() && member.has_lost();
        if is_rendering || !clears && !member.outbox().is_half_free() {
            // Other connections must not wait for the rendering, or for a client that does not
            // read.
            self.ticket = None;
            return None;
        }
        let may_read = member.may_work(&mut self.ticket);
        may_read.then(|| ReadSlice::new(member.quota()))
    }

    pub(super) fn run_step(
        &mut self,
        member: &mut TenantMember,
        slice: &mut ReadSlice,
    ) -> SubscribeProgress {
        match self.phase {
            CatchUpPhase::Counting { found } => self.count_events(member, slice, found),
            CatchUpPhase::Replaying { left } => self.replay_events(member, slice, left),
            CatchUpPhase::Following => self.follow_log(member, slice),
        }
    }

    fn count_events(
        &mut self,
        member: &mut TenantMember,
        slice: &mut ReadSlice,
        mut found: u64,
    ) -> SubscribeProgress {
        let span = LogSpan {
            whole_after: self.resume_from,
            after: self.cursor,
            up_to: self.position.offset,
        };
        let read = member.read_log(span, slice, |event| {
            found += u64::from(self.is_replayed(member, event));
            ControlFlow::Continue(())
        });
        match read {
            Ok(cursor) if cursor < self.position.offset => {
                self.cursor = cursor;
                self.phase = CatchUpPhase::Counting { found };
                SubscribeProgress::More
            }
            Ok(_) if found == 0 => {
                self.end_replay(member);
                self.confirmed(Ok(found))
            }
            Ok(_) => {
                self.cursor = self.resume_from;
                self.phase = CatchUpPhase::Replaying { left: found };
                self.confirmed(Ok(found))
            }
            Err(gap) => {
                self.start_following();
                self.confirmed(Err(gap))
            }
        }
    }

    fn replay_events(
        &mut self,
        member: &mut TenantMember,
        slice: &mut ReadSlice,
        mut left: u64,
    ) -> SubscribeProgress {
        let span = LogSpan {
            whole_after: self.cursor,
            after: self.cursor,
            up_to: self.position.offset,
        };
        let mut queued = ReplayBatch::for_slice(slice, &mut self.json);
        let read = member.read_log(span, slice, |event| {
            if left == 0 || queued.is_full() || !member.outbox().is_half_free() {
                return ControlFlow::Break(());
            }
            if self.is_replayed(member, event) {
                queued.add_event(member, event, |frame| member.push_replayed(frame))?;
                left -= 1;
            }
            ControlFlow::Continue(())
        });
        slice.charge(queued.cost);
        self.json = queued.json;
        if let Some(no_json) = queued.failed {
            return SubscribeProgress::NoJson(no_json);
        }
        match read {
            // The rest up to the position holds nothing for this replay.
            Ok(_) if left == 0 => {
                self.end_replay(member);
                self.follow_log(member, slice)
            }
            Ok(cursor) => {
                self.cursor = cursor;
                self.phase = CatchUpPhase::Replaying { left };
                SubscribeProgress::More
            }
            Err(_) => SubscribeProgress::Overtaken,
        }
    }

    fn confirmed(&self, resumed: Result<u64, ReplayGap>) -> SubscribeProgress {
        SubscribeProgress::Answer(Ok(SubscribeConfirmation {
            position: self.position,
            resumed: Some(resumed),
        }))
    }

    fn end_replay(&mut self, member: &mut TenantMember) {
        member.finish_replay(&self.topics, self.implicit, self.resume_from);
        self.start_following();
    }

    fn start_following(&mut self) {
        self.cursor = self.position.offset;
        self.phase = CatchUpPhase::Following;
    }

    fn follow_log(
        &mut self,
        member: &mut TenantMember,
        slice: &mut ReadSlice,
    ) -> SubscribeProgress {
        if member.has_lost() && !member.clear_lost() {
            return SubscribeProgress::More;
        }
        if member.outbox().is_caught_up() {
            // Any other event since then does not match this connection, evicted or not.
            return SubscribeProgress::Live;
        }
        let span = LogSpan {
            whole_after: self.cursor,
            after: self.cursor,
            up_to: member.delivered_up_to().offset,
        };
        let mut queued = ReplayBatch::for_slice(slice, &mut self.json);
        let read = member.read_log(span, slice, |event| {
            if queued.is_full() || !member.outbox().is_half_free() {
                return ControlFlow::Break(());
            }
            if member.matches_event(event) {
                queued.add_event(member, event, |frame| member.push_pending(frame))?;
            }
            ControlFlow::Continue(())
        });
        slice.charge(queued.cost);
        self.json = queued.json;
        if let Some(no_json) = queued.failed {
            return SubscribeProgress::NoJson(no_json);
        }
        match read {
            Ok(cursor) => {
                self.cursor = cursor;
                if cursor < span.up_to {
                    return SubscribeProgress::More;
                }
                SubscribeProgress::Live
            }
            Err(_) => SubscribeProgress::Overtaken,
        }
    }

    /// Returns true if the event belongs to the replay: it matches a topic that is replayed, and
    /// no earlier subscription has delivered it.
    fn is_replayed(&self, member: &TenantMember, event: &Event) -> bool {
        let is_named = |topic: &Topic| {
            self.topics.covers(topic) || (self.implicit && member.is_implicit(topic))
        };
        event.topics().iter().any(is_named) && !member.already_delivered(event)
    }
}

/// The events that one step queues.
#[derive(Debug)]
struct ReplayBatch {
    cost: Cost,
    /// Limit on the cost, which the last event may exceed, since it is queued whole.
    quota: Cost,
    json: NextJson,
    failed: Option<NoJson>,
}

impl ReplayBatch {
    fn for_slice(slice: &ReadSlice, json: &mut NextJson) -> Self {
        Self {
            cost: Cost::ZERO,
            quota: slice.remaining_quota(),
            json: mem::take(json),
            failed: None,
        }
    }

    /// Queues an event. Breaks if it must be rendered first, or has no JSON.
    fn add_event(
        &mut self,
        member: &TenantMember,
        event: &Arc<Event>,
        queue: impl FnOnce(OutboundFrame),
    ) -> ControlFlow<()> {
        let frame = match mem::take(&mut self.json) {
            NextJson::Rendered(Ok(json)) if json.offset() == event.position().offset => {
                Ok(ReplayFrame::Made(OutboundFrame::Json(json), Cost::FRAME))
            }
            NextJson::Rendered(Err(no_json)) => Err(no_json),
            NextJson::Rendered(Ok(_)) | NextJson::None | NextJson::Rendering(_) => {
                member.make_frame(event)
            }
        };
        match frame {
            Ok(ReplayFrame::Made(frame, cost)) => {
                queue(frame);
                self.cost += cost;
                ControlFlow::Continue(())
            }
            Ok(ReplayFrame::Rendering(rendering)) => {
                self.json = NextJson::Rendering(rendering);
                ControlFlow::Break(())
            }
            Err(no_json) => {
                self.failed = Some(no_json);
                ControlFlow::Break(())
            }
        }
    }

    /// Returns true if the quota is used up.
    fn is_full(&self) -> bool {
        self.cost >= self.quota
    }
}
