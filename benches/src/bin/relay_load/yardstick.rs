//! The bare forwarder: what the kernel alone takes for passing packets on.
//!
//! It looks up the channel of a train's first packet and sends the train on as it came, unopened and uncounted. A
//! client names its channel with a packet of kind 0 and gets it back as the answer.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;

use handfast_benches::client::{BUFFER_LEN, End, HEAD_LEN};

/// The kind of a packet that names a channel: no kind of handfast's.
pub(crate) const NAME: u8 = 0;

/// Forwards until it is killed.
pub(crate) fn run() -> io::Result<()> {
    let end = End::bind()?;
    end.set_blocking()?;
    println!("{}", end.address()?);
    let mut legs: HashMap<[u8; HEAD_LEN - 1], Vec<SocketAddr>> = HashMap::new();
    let mut buf = vec![0; BUFFER_LEN];
    loop {
        let Some((len, stride, source)) = end.receive(&mut buf)? else { continue };
        let Some(&[kind, ref channel @ ..]) = buf.first_chunk::<HEAD_LEN>() else { continue };
        if kind == NAME {
            let known = legs.entry(*channel).or_default();
            if !known.contains(&source) {
                known.push(source);
            }
            end.send(source, &buf[..len], stride)?;
        } else if let Some([one, two]) = legs.get(channel).map(Vec::as_slice) {
            end.send(if source == *one { *two } else { *one }, &buf[..len], stride)?;
        }
    }
}
