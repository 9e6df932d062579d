//! Probes of a few leaves, answered at once and late, while links go and time passes.

use super::{
    Account, Alternates, Asked, DELAYED_PER_PEER_MAX, Duration, Instant, Path, PeerKey, ProbeReplies, ReplyOutput,
    SocketAddr, SocketId,
};
use crate::operations::Bytes;

/// Three bytes are an operation: which, of whom, and a number.
///
/// # Panics
/// Where the machine breaks a promise: that is a fault found.
pub fn drive(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let (mut replies, mut account) = (ProbeReplies::default(), Account::default());
    let (mut now, mut alternates) = (Instant::ZERO, Alternates::default());
    // What each leaf asked for and has not got.
    let mut waiting = [0_usize; 4];
    while !bytes.is_empty() {
        let (what, whom, n) = (bytes.u8(), bytes.u8() % 4, bytes.u8());
        let peer = PeerKey { index: whom.into(), generation: 1 };
        match what % 4 {
            0 => {
                let asked = asked(peer, n, what);
                let is_taken = replies.on_probe(now, &mut account, &alternates, &asked).is_ok();
                waiting[usize::from(whom)] += usize::from(is_taken && !asked.delay.is_zero());
            }
            1 => {
                replies.forget(peer);
                waiting[usize::from(whom)] = 0;
            }
            2 => {
                let bound = SocketAddr::from(([0, 0, 0, 0], n.into()));
                alternates = Alternates::of((n % 2 == 1).then_some((SocketId(1), bound)).into_iter());
            }
            _ => {
                now += Duration::from_secs(n.into());
                account.handle_timeout(now);
                replies.handle_timeout(now, &alternates);
                assert!(replies.poll_timeout().is_none_or(|at| at > now), "what is due is done");
            }
        }
        let is_late = what % 4 == 3;
        while let Some(output) = replies.poll_output() {
            match output {
                ReplyOutput::Answer { peer, path, .. } if is_late => {
                    assert_eq!(path.socket, SocketId(0), "late ones leave from where the probe came to");
                    waiting[usize::try_from(peer.index).expect("small")] -= 1;
                }
                ReplyOutput::Answer { .. } => assert_eq!(what % 4, 0, "an answer to nothing"),
                ReplyOutput::OpenAlternate(_) => assert_eq!(alternates, Alternates::default(), "it is open"),
            }
        }
        assert!(waiting.iter().all(|count| *count <= DELAYED_PER_PEER_MAX));
        assert_eq!(replies.due.len(), waiting.iter().sum::<usize>());
        assert_eq!(replies.by_peer.len(), replies.due.len());
    }
}

fn asked(peer: PeerKey, n: u8, what: u8) -> Asked {
    let remote = SocketAddr::from(([198, 51, 100, n % 8], 4_000));
    let path = Path { socket: SocketId(u32::from(what & 4) << 29), remote, local: None };
    let delay = Duration::from_secs(u64::from(n / 8) * 20);
    let alternate = what & 16 != 0;
    Asked { peer, path, is_proven: what & 8 != 0, len: 64, token: [n; 8], delay, alternate }
}
