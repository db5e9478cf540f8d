//! One neighbour: the finite state machine of RFC 4271 §8 and the collision of connections (§6.8).
