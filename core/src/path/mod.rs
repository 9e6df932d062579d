//! The paths of one link: which are proven, which is used, how good it is, and when it has failed.
//!
//! [`Paths`] knows them and chooses. [`Quality`] measures the one in use and the one that could be used instead.
//! [`FailureDetector`] notices that what awaits an answer gets none. All three are told what was sent and heard and say
//! what they want; sending is the business of whoever has the keys.

mod failure;
mod paths;
mod quality;
mod route;
mod rtt;

pub(crate) use failure::{FailureDetector, Remedy};
pub(crate) use paths::{Change, Heard, Paths};
pub(crate) use quality::{Output, Quality, View};
pub(crate) use route::Route;
