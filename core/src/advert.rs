//! advert
