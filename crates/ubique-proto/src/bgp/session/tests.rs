//! Rungs one and two: the table of [`super::fsm`] and of a whole neighbour (`table`), named cases (`cases`,
//! `collision`, `opens`). Random inputs and pairs of speakers on one clock are in `speaker::tests`.

mod bench;
mod cases;
mod collision;
mod opens;
mod table;
