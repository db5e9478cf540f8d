//! Four rungs: the table of [`super::fsm`] and of a whole neighbour (`table`), named cases (`cases`, `collision`,
//! `opens`), random sequences (`random`). The fourth, two speakers on one clock, is in `speaker::tests`.

mod bench;
mod cases;
mod collision;
mod opens;
mod random;
mod table;
