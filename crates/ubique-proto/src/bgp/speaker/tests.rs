//! The speaker as a whole: named cases, random inputs under audit, and speakers that talk to each other on one
//! virtual clock with seeded latency and faults.

mod audit;
mod bench;
mod cases;
mod drive;
mod fixture;
mod flows;
mod graceful;
mod net;
mod pairs;
mod peers;
mod random;
mod refresh;
mod simulation;
mod table;
