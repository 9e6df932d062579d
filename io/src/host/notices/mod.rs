//! The kernel's notices that something about links, addresses or routes changed: a netlink socket on Linux.
//!
//! What the messages say is not read: whoever gets a notice looks for itself. So nothing is parsed, and messages that
//! are lost because too many came at once are as good as those that arrive.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod other;

#[cfg(target_os = "linux")]
pub(super) use linux::Notices;
#[cfg(not(target_os = "linux"))]
pub(super) use other::Notices;
