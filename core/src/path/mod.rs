//! The paths of one link: which are proven, which is used, how good it is, and when it has failed.
//!
//! [`Paths`] knows them and chooses. [`Quality`] measures the one in use and the one that could be used instead.
//! [`FailureDetector`] notices that what awaits an answer gets none. All three are told what was sent and heard and say what they
//! want; sending is the business of whoever has the keys. [`Pings`] measures round trips for the application.

mod failure;
mod paths;
mod pings;
mod quality;

pub(crate) use failure::{FailureDetector, Remedy};
pub(crate) use paths::{Change, Heard, Paths, Route};
pub(crate) use pings::Pings;
pub(crate) use quality::{Output, Quality, View};
