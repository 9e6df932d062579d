//! Where the kernel gives no notices: the type is there, and never comes to be.

use std::io;

use mio::{Registry, Token};

/// Never comes to be.
pub(crate) enum Notices {}

impl Notices {
    /// Refuses.
    pub(crate) fn open(_registry: &Registry, _token: Token) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Nothing was there.
    pub(crate) fn drain(&self) -> bool {
        match *self {}
    }
}
