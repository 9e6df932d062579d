//! What the world sees of us.

/// RFC 4787 §4.1: how a router maps an internal address and port to an external one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum MappingBehavior {
    /// The same external address and port for every destination.
    EndpointIndependent,
    /// Another one per destination address (or address and port: two supernodes cannot tell which).
    AddressOrPortDependent,
}
