//! The callee: what it makes of an introduction that a home brings.
//!
//! It keeps nothing here: the handshakes that it answered are kept with the peers. Its own are whether an introduction
//! is worth a handshake ([`judge`]), and what the home is told when the node has decided about what the caller says
//! inside ([`reply`]).

use crate::account::Account;
use crate::net::{DropReason, PeerKey};
use crate::peer::LinkUse;
use crate::time::Instant;
use crate::wire::message::{InitBody, Message, Refusal, Whereabouts};
use crate::wire::packet::ChannelId;

/// How this very Init was answered before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered<'a> {
    /// It came straight, from an address: this one is a copy.
    pub(crate) is_direct: bool,
    /// The Response.
    pub(crate) response: &'a [u8],
}

/// What is to be done about an introduction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Judgement<'a> {
    /// It is new: open the Init.
    Open,
    /// The answer was lost: this again.
    Again(&'a [u8]),
}

/// Whether an introduction that `home` brings is worth a handshake; if so it is entered in the account.
pub(crate) fn judge<'a>(
    now: Instant,
    account: &mut Account,
    home: PeerKey,
    is_chosen: bool,
    answered: Option<Answered<'a>>,
) -> Result<Judgement<'a>, DropReason> {
    // Only a home that we chose may bring callers, or anybody linked could make us work.
    if !is_chosen {
        return Err(DropReason::WrongPath);
    }
    match answered {
        Some(answered) if answered.is_direct => Err(DropReason::Replayed),
        Some(answered) => Ok(Judgement::Again(answered.response)),
        None if account.take_inner_init(now, home) => Ok(Judgement::Open),
        None => Err(DropReason::Limited),
    }
}

/// Where the caller says that it is, and what it wants the link for.
pub(crate) fn wanted(body: InitBody<'_>) -> Result<(Whereabouts, LinkUse), DropReason> {
    match body {
        InitBody::Introduced { whereabouts } => Ok((whereabouts, LinkUse::User)),
        InitBody::Leg { whereabouts } => Ok((whereabouts, LinkUse::Leg)),
        InitBody::Direct { .. } => Err(DropReason::BadContents),
    }
}

/// What the home is told of an Init. Only a caller that may use nothing here hears of a refusal, one whose Init cannot be
/// read, and one for whom a volunteer has no room; any other failure is passed over in silence, since the home repeats
/// what is not answered.
pub(crate) fn reply(channel: ChannelId, result: Result<&[u8], DropReason>) -> Result<Message<'_>, DropReason> {
    let response = match result {
        Ok(response) => Ok(response),
        Err(DropReason::Unauthentic) => Err(Refusal::NotAllowed),
        Err(DropReason::OtherVersion) => Err(Refusal::OtherVersion),
        Err(DropReason::Quota) => Err(Refusal::Busy),
        Err(reason) => return Err(reason),
    };
    Ok(Message::IntroducedReply { channel, response })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: PeerKey = PeerKey { index: 3, generation: 1 };

    #[test]
    fn only_a_chosen_home_brings_callers_and_only_so_many() {
        let mut account = Account::default();
        let judged = judge(Instant::ZERO, &mut account, HOME, false, None);
        assert_eq!(judged, Err(DropReason::WrongPath));
        let opened = (0..100).filter(|_| judge(Instant::ZERO, &mut account, HOME, true, None).is_ok()).count();
        assert_eq!(opened, 40);
        assert_eq!(judge(Instant::ZERO, &mut account, HOME, true, None), Err(DropReason::Limited));
    }

    #[test]
    fn an_init_that_was_answered_costs_no_handshake() {
        let mut account = Account::default();
        let answered = |is_direct| Some(Answered { is_direct, response: b"the response" });
        for _ in 0..100 {
            let judged = judge(Instant::ZERO, &mut account, HOME, true, answered(false));
            assert_eq!(judged, Ok(Judgement::Again(b"the response")));
        }
        let copied = judge(Instant::ZERO, &mut account, HOME, true, answered(true));
        assert_eq!(copied, Err(DropReason::Replayed), "whoever confirms it proves that it got the Response");
        assert_eq!(judge(Instant::ZERO, &mut account, HOME, true, None), Ok(Judgement::Open));
    }

    #[test]
    fn a_refusal_is_told_and_any_other_failure_is_not() {
        let channel = ChannelId([1; 6]);
        let told = |result| reply(channel, result);
        let yes = Message::IntroducedReply { channel, response: Ok(b"the response") };
        assert_eq!(told(Ok(b"the response")), Ok(yes));
        let no = Message::IntroducedReply { channel, response: Err(Refusal::NotAllowed) };
        assert_eq!(told(Err(DropReason::Unauthentic)), Ok(no));
        let full = Message::IntroducedReply { channel, response: Err(Refusal::Busy) };
        assert_eq!(told(Err(DropReason::Quota)), Ok(full));
        assert_eq!(told(Err(DropReason::Limited)), Err(DropReason::Limited));
    }
}
