//! Plays a scenario on a world.
