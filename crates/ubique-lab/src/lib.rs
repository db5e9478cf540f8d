//! ubique-lab
