//! Clients that present newer tokens while they are connected: longer and shorter ones, with wider
//! and narrower grants, and such as the relay refuses.

use std::time::Duration;

use super::{
    messages::{WireAuthenticate, WireEnvelope},
    record::RequestKind,
    session::ClientSession,
    tokens::{ClientToken, PresentedToken, TokenDefect, TopicGrant},
    topics::{TENANTS, TopicBits},
    world::BEGIN,
};

/// Time until a token expires that outlives the simulation.
pub(super) const LONG: Duration = Duration::from_hours(1);

impl ClientSession<'_> {
    /// Presents a token, sometimes while a replay runs and Subscribes wait for it, and sometimes
    /// two at once.
    pub(super) fn renew_token(&mut self) {
        let behind_resume = self.client.dice.percent(35);
        if behind_resume {
            self.resume_from_anywhere(TopicBits::drawn(&self.client.dice, 4));
        }
        if behind_resume && self.client.dice.percent(50) {
            self.subscribe_to_some();
        }
        self.authenticate(behind_resume);
        if self.client.dice.percent(20) {
            self.authenticate(false);
        }
        if self.client.dice.percent(40) {
            self.subscribe_to_some();
        }
    }

    fn authenticate(&mut self, narrows: bool) {
        let presented = self.drawn_token(narrows);
        let text = match presented.defect {
            Some(TokenDefect::Unsigned) => self.unsigned_text(&presented.token),
            _ => self.client.world.token(&presented.token),
        };
        let envelope = WireEnvelope {
            message_id: self.next_id(),
            authenticate: Some(WireAuthenticate { token: text }),
            ..WireEnvelope::default()
        };
        self.request(envelope, RequestKind::Authenticate(presented));
    }

    /// Returns a random token. `narrows`: true if it should rather have a narrower grant.
    fn drawn_token(&self, narrows: bool) -> PresentedToken {
        let (client, dice) = (&self.client, &self.client.dice);
        // `exp` has whole seconds.
        let now = BEGIN + Duration::from_secs(client.history.now().time.as_secs());
        let mut token = ClientToken {
            tenant: client.tenant,
            user: client.user(),
            expires_at: now + LONG,
            grant: TopicGrant::of_user(client.user()),
            claim: None,
        };
        let mut defect = None;
        let narrower = if narrows { 150 } else { 30 };
        match dice.weighted(&[30, narrower, 15, 8, 8, 9]) {
            0 => {}
            1 => token.grant = self.drawn_grant(),
            2 => token.expires_at = now + Duration::from_secs(dice.within(2..6) as u64),
            3 => token.expires_at = now - Duration::from_secs(10),
            4 => defect = Some(TokenDefect::Unsigned),
            _ => {
                defect = Some(TokenDefect::OfAnother);
                match dice.percent(50) {
                    true => token.user += 1,
                    false => token.tenant = (token.tenant + 1) % TENANTS.len(),
                }
            }
        }
        if dice.percent(20) {
            // It waits for the next connection.
            let claim = TopicBits::drawn(dice, 3);
            token.claim = Some(claim.less(token.grant.refuses(claim)));
        }
        PresentedToken { token, defect }
    }

    /// Returns a grant that covers about half of what can be subscribed to.
    fn drawn_grant(&self) -> TopicGrant {
        let dice = &self.client.dice;
        let granted = TopicBits::all_to_ask_for().indices();
        let granted = granted.filter(|_| dice.percent(55));
        TopicGrant::Listed(granted.fold(TopicBits::NONE, |set, index| set | TopicBits::of(index)))
    }

    fn unsigned_text(&self, token: &ClientToken) -> String {
        let dice = &self.client.dice;
        match dice.below(3) {
            0 => String::new(),
            1 => "header.claims.signature".to_owned(),
            _ => {
                let signed = self.client.world.token(token);
                let (content, _) = signed.rsplit_once('.').unwrap();
                format!("{content}.{}", "A".repeat(43))
            }
        }
    }
}
