//! ubique-sys
