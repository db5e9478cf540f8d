//! The speaker as a whole: named cases, random inputs under audit, and speakers that talk to each other on one
//! virtual clock with seeded latency and faults.

mod audit;
mod cases;
mod fixture;
mod net;
mod pairs;
mod random;
