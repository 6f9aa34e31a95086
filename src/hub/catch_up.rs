//! How a connection that resumes gets from where it was to where its shard is: a
//! cursor on the tenant's log, which reads a slice at a time, when it is its turn among all
//! that catch up, so that neither the shard nor the tenant's lock is held up, and only what
//! the outbox has room for.
//!
//! 1. Counting: how many events are to be replayed. Complete or refused: what is
//!    evicted until the client is told refuses the whole.
//! 2. Replaying: these events, up to the confirmed position.
//! 3. Following: what came since, for all topics of the connection, up to what the
//!    shard has taken from its inbox. In the step that gets there the connection
//!    becomes live.
//!
//! While it lasts the connection's topics do not change, and what the shard takes
//! from its inbox is counted by the outbox as owed: the cursor finds just that.

use std::{
    mem,
    ops::ControlFlow,
    sync::Arc,
    task::{Context, Poll, ready},
};

use super::{
    large_json::RenderingJson,
    membership::{Membership, ReplayFrame},
    read_slice::ReadSlice,
    tenant::Span,
};
use crate::{
    event::{Event, JsonFrame, NoJson},
    log::Gap,
    outbox::Frame,
    protocol::{Position, Topic, topic::TopicSet},
    scheduler::{Cost, Place},
};

/// A connection on its way from a position that it had to the shard's.
#[derive(Debug)]
pub struct CatchUp {
    /// What the Subscribe names.
    topics: TopicSet,
    /// Whether the connection's implicit topics are replayed too.
    implicit: bool,
    /// The offset that the client had.
    resume_from: u64,
    /// Where the connection stood when the Subscribe was taken.
    position: Position,
    /// Up to where the log is read.
    cursor: u64,
    phase: Phase,
    /// Its place among those that wait to read.
    place: Option<Place>,
    json: NextJson,
    has_begun: bool,
}

/// The JSON of the event that comes next, where another thread renders it.
#[derive(Debug, Default)]
enum NextJson {
    #[default]
    None,
    Rendering(RenderingJson),
    Rendered(Result<Arc<JsonFrame>, NoJson>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Counting { found: u64 },
    Replaying { left: u64 },
    Following,
}

/// How far a step has brought a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The Subscribe is to be confirmed now, before the next step: with so many
    /// events to replay, or as not recovered.
    Confirm(Result<u64, Gap>),
    /// There is more to do, after the others' turn and when the outbox is half free.
    More,
    /// The connection gets what is published as it comes.
    Live,
    /// What is owed to the connection has left the log: it has to be closed.
    Overtaken,
    /// What is owed to the connection cannot be written as JSON: it has to be closed.
    NoJson(NoJson),
}

impl CatchUp {
    pub(super) fn new(
        topics: &[Topic],
        implicit: bool,
        resume_from: u64,
        position: Position,
    ) -> Self {
        Self {
            topics: topics.iter().cloned().collect(),
            implicit,
            resume_from,
            position,
            cursor: resume_from,
            phase: Phase::Counting { found: 0 },
            place: None,
            json: NextJson::None,
            has_begun: false,
        }
    }

    /// Where the connection stood when the Subscribe was taken.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Returns true if it has had a turn.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Waits until the event that comes next is rendered, if it has to be.
    pub fn poll_rendered(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let NextJson::Rendering(rendering) = &mut self.json {
            let rendered = ready!(rendering.poll(context));
            self.json = NextJson::Rendered(rendered);
        }
        Poll::Ready(())
    }

    /// Returns true if the connection may go on now. Else it waits for its turn, when it
    /// is nudged, or until its outbox is half free.
    pub fn may_go_on(&mut self, membership: &Membership) -> bool {
        self.slice(membership).is_some()
    }

    /// Goes on for a slice, if it [may](Self::may_go_on).
    pub fn go_on(&mut self, membership: &Membership) -> Option<Progress> {
        let mut slice = self.slice(membership)?;
        self.has_begun = true;
        let progress = self.step(membership, &mut slice);
        membership.charge(slice.cost());
        if progress == Progress::More {
            // Behind the others.
            self.place = None;
        }
        Some(progress)
    }

    fn slice(&mut self, membership: &Membership) -> Option<ReadSlice> {
        let is_rendering = matches!(self.json, NextJson::Rendering(_));
        if is_rendering || !membership.outbox().is_half_free() {
            // Others need not wait for that, nor for a client that does not read.
            self.place = None;
            return None;
        }
        let may_read = membership.may_work(&mut self.place);
        may_read.then(|| ReadSlice::new(membership.quota()))
    }

    pub(super) fn step(&mut self, membership: &Membership, slice: &mut ReadSlice) -> Progress {
        match self.phase {
            Phase::Counting { found } => self.count(membership, slice, found),
            Phase::Replaying { left } => self.replay(membership, slice, left),
            Phase::Following => self.follow(membership, slice),
        }
    }

    fn count(
        &mut self,
        membership: &Membership,
        slice: &mut ReadSlice,
        mut found: u64,
    ) -> Progress {
        let span = Span {
            whole_after: self.resume_from,
            after: self.cursor,
            up_to: self.position.offset,
        };
        let read = membership.read_log(span, slice, |event| {
            found += u64::from(self.replays(membership, event));
            ControlFlow::Continue(())
        });
        match read {
            Ok(cursor) if cursor < self.position.offset => {
                self.cursor = cursor;
                self.phase = Phase::Counting { found };
                Progress::More
            }
            Ok(_) if found == 0 => {
                self.end_replay(membership);
                Progress::Confirm(Ok(found))
            }
            Ok(_) => {
                self.cursor = self.resume_from;
                self.phase = Phase::Replaying { left: found };
                Progress::Confirm(Ok(found))
            }
            Err(gap) => {
                self.begin_to_follow();
                Progress::Confirm(Err(gap))
            }
        }
    }

    fn replay(
        &mut self,
        membership: &Membership,
        slice: &mut ReadSlice,
        mut left: u64,
    ) -> Progress {
        let span = Span {
            whole_after: self.cursor,
            after: self.cursor,
            up_to: self.position.offset,
        };
        let mut queued = Queued::of(slice, &mut self.json);
        let read = membership.read_log(span, slice, |event| {
            if left == 0 || queued.is_enough() || !membership.outbox().is_half_free() {
                return ControlFlow::Break(());
            }
            if self.replays(membership, event) {
                queued.add(membership, event, |frame| membership.replay(frame))?;
                left -= 1;
            }
            ControlFlow::Continue(())
        });
        slice.charge(queued.cost);
        self.json = queued.json;
        if let Some(no_json) = queued.failed {
            return Progress::NoJson(no_json);
        }
        match read {
            // What is left to read up to the position is not for this replay.
            Ok(_) if left == 0 => {
                self.end_replay(membership);
                self.follow(membership, slice)
            }
            Ok(cursor) => {
                self.cursor = cursor;
                self.phase = Phase::Replaying { left };
                Progress::More
            }
            Err(_) => Progress::Overtaken,
        }
    }

    fn end_replay(&mut self, membership: &Membership) {
        membership.replayed(&self.topics, self.implicit, self.resume_from);
        self.begin_to_follow();
    }

    fn begin_to_follow(&mut self) {
        self.cursor = self.position.offset;
        self.phase = Phase::Following;
    }

    fn follow(&mut self, membership: &Membership, slice: &mut ReadSlice) -> Progress {
        if membership.outbox().owes_nothing() {
            // Whatever else came meanwhile is not for it, evicted or not.
            membership.outbox().go_live();
            return Progress::Live;
        }
        let span = Span {
            whole_after: self.cursor,
            after: self.cursor,
            up_to: membership.taken().offset,
        };
        let mut queued = Queued::of(slice, &mut self.json);
        let read = membership.read_log(span, slice, |event| {
            if queued.is_enough() || !membership.outbox().is_half_free() {
                return ControlFlow::Break(());
            }
            if membership.relates(event) {
                queued.add(membership, event, |frame| membership.queue_owed(frame))?;
            }
            ControlFlow::Continue(())
        });
        slice.charge(queued.cost);
        self.json = queued.json;
        if let Some(no_json) = queued.failed {
            return Progress::NoJson(no_json);
        }
        match read {
            Ok(cursor) => {
                self.cursor = cursor;
                if cursor < span.up_to {
                    return Progress::More;
                }
                membership.outbox().go_live();
                Progress::Live
            }
            Err(_) => Progress::Overtaken,
        }
    }

    /// Whether the event is one of the replay: it relates to what the Subscribe
    /// names, and no subscription that stood before has brought it.
    fn replays(&self, membership: &Membership, event: &Event) -> bool {
        let is_named = |topic: &Topic| {
            self.topics.contains(topic) || (self.implicit && membership.is_implicit(topic))
        };
        event.topics().iter().any(is_named) && !membership.has_brought(event)
    }
}

/// What a step has queued.
#[derive(Debug)]
struct Queued {
    cost: Cost,
    /// The most that it may cost, beside its last event, which is queued whole.
    quota: Cost,
    json: NextJson,
    failed: Option<NoJson>,
}

impl Queued {
    fn of(slice: &ReadSlice, json: &mut NextJson) -> Self {
        Self {
            cost: Cost::ZERO,
            quota: slice.left(),
            json: mem::take(json),
            failed: None,
        }
    }

    /// Has an event queued. If it has to be rendered first, or has no JSON, nothing more may
    /// be queued.
    fn add(
        &mut self,
        membership: &Membership,
        event: &Arc<Event>,
        queue: impl FnOnce(Frame),
    ) -> ControlFlow<()> {
        let frame = match mem::take(&mut self.json) {
            NextJson::Rendered(Ok(json)) if json.offset() == event.position().offset => {
                Ok(ReplayFrame::Made(Frame::Json(json), Cost::FRAME))
            }
            NextJson::Rendered(Err(no_json)) => Err(no_json),
            NextJson::Rendered(Ok(_)) | NextJson::None | NextJson::Rendering(_) => {
                membership.frame(event)
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

    /// Returns true if others are to have their turn.
    fn is_enough(&self) -> bool {
        self.cost >= self.quota
    }
}
