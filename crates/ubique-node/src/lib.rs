//! ubique-node
