//! The world on a flat page: Miller's cylindrical projection, the land as an SVG path.
//!
//! Miller keeps the crowded northern middle latitudes apart and fills a rectangle, which suits a map of networks; areas
//! are not to be compared on it. `land.svgpath` is Natural Earth's 1:110m land (public domain), taken from the TopoJSON
//! edition of world-atlas, projected, and rounded to whole units of the view box. A test makes it anew and compares.

/// Width of the map's view box; the height follows from [`NORTH`] and [`SOUTH`].
pub(super) const WIDTH: f64 = 2000.0;
/// Northernmost latitude shown.
pub(super) const NORTH: f64 = 79.0;
/// Southernmost latitude shown: nobody asks from Antarctica.
pub(super) const SOUTH: f64 = -56.5;

/// The land, in units of the view box.
pub(super) const LAND: &str = include_str!("land.svgpath");

/// Point of the view box of a place, y down.
pub(super) fn project(lat: f64, lon: f64) -> (f64, f64) {
    let scale = WIDTH / std::f64::consts::TAU;
    ((lon + 180.0).to_radians() * scale, (miller(NORTH) - miller(lat)) * scale)
}

/// Height of the view box.
pub(super) fn height() -> f64 {
    project(SOUTH, 0.0).1
}

/// Ordinate of a latitude (Miller, 1942).
fn miller(lat: f64) -> f64 {
    1.25 * (std::f64::consts::FRAC_PI_4 + 0.4 * lat.to_radians()).tan().ln()
}

#[cfg(test)]
mod tests;
