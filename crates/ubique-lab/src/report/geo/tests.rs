//! The projection, and the land path against its source.

use std::fmt::Write;
use std::path::Path;

use super::*;

/// Islands smaller than this, in square units of the view box, are dropped.
const MIN_AREA: f64 = 4.0;

#[test]
fn the_projection_is_millers() {
    assert_eq!(project(NORTH, 0.0), (WIDTH / 2.0, 0.0));
    assert_eq!((project(0.0, -180.0).0, project(0.0, 180.0).0), (0.0, WIDTH));
    // The poles are at 2.303412543 (Snyder, Map Projections: A Working Manual, table 14).
    assert!((miller(90.0) - 2.303412543).abs() < 1e-9 && (miller(-90.0) + 2.303412543).abs() < 1e-9);
    assert!(miller(0.0).abs() < 1e-12);
}

/// Rings of the land as (lon, lat), from TopoJSON (quantised, delta-encoded arcs).
fn rings(json: &serde_json::Value) -> Vec<Vec<(f64, f64)>> {
    let number = |v: &serde_json::Value| v.as_f64().unwrap();
    let pair = |v: &serde_json::Value| (number(&v[0]), number(&v[1]));
    let (scale, translate) = (pair(&json["transform"]["scale"]), pair(&json["transform"]["translate"]));
    let arc = |index: i64| {
        let place = if index < 0 { !index } else { index } as usize;
        let (mut x, mut y) = (0.0, 0.0);
        let mut points: Vec<(f64, f64)> = Vec::new();
        for step in json["arcs"][place].as_array().unwrap() {
            let (dx, dy) = pair(step);
            (x, y) = (x + dx, y + dy);
            points.push((x * scale.0 + translate.0, y * scale.1 + translate.1));
        }
        if index < 0 {
            points.reverse();
        }
        points
    };
    let polygons = json["objects"]["land"]["geometries"].as_array().unwrap().iter();
    let polygons = polygons.flat_map(|g| g["arcs"].as_array().unwrap());
    polygons
        .flat_map(|polygon| polygon.as_array().unwrap())
        .map(|ring| {
            let mut points: Vec<(f64, f64)> = Vec::new();
            for index in ring.as_array().unwrap() {
                let next = arc(index.as_i64().unwrap());
                points.extend(&next[usize::from(!points.is_empty())..]);
            }
            points
        })
        .collect()
}

/// The ring with longitudes that run on past 180 instead of jumping.
fn unwrapped(ring: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut shift = 0.0;
    let mut last = ring[0].0;
    let run_on = |(lon, lat): &(f64, f64)| {
        if (lon - last).abs() > 180.0 {
            shift += if *lon < last { 360.0 } else { -360.0 };
        }
        last = *lon;
        (lon + shift, *lat)
    };
    ring.iter().map(run_on).collect()
}

/// The part of a ring on one side of a meridian (Sutherland and Hodgman).
fn clipped(ring: &[(f64, f64)], meridian: f64, keep_west: bool) -> Vec<(f64, f64)> {
    let inside = |p: &(f64, f64)| {
        if keep_west { p.0 <= meridian } else { p.0 >= meridian }
    };
    let mut out = Vec::new();
    for (a, b) in ring.iter().zip(ring.iter().cycle().skip(1)) {
        if inside(a) {
            out.push(*a);
        }
        if inside(a) != inside(b) {
            out.push((meridian, a.1 + (b.1 - a.1) * (meridian - a.0) / (b.0 - a.0)));
        }
    }
    out
}

fn land(json: &serde_json::Value) -> String {
    let mut path = String::new();
    for ring in rings(json) {
        let ring = unwrapped(&ring);
        // A ring around the pole does not close: that is Antarctica, which is not on the map.
        if (ring[0].0 - ring[ring.len() - 1].0).abs() > 1.0 {
            continue;
        }
        for shift in [-360.0, 0.0, 360.0] {
            let shifted: Vec<_> = ring.iter().map(|(lon, lat)| (lon + shift, *lat)).collect();
            part(&clipped(&clipped(&shifted, -180.0, false), 180.0, true), &mut path);
        }
    }
    path
}

/// Appends a ring in relative steps, unless it is too small or outside the map.
fn part(ring: &[(f64, f64)], path: &mut String) {
    let points = ring.iter().map(|(lon, lat)| project(lat.clamp(SOUTH - 3.0, NORTH + 3.0), *lon));
    let mut points: Vec<(i64, i64)> = points.map(|(x, y)| (x.round() as i64, y.round() as i64)).collect();
    points.dedup();
    let doubled: i64 = points.iter().zip(points.iter().cycle().skip(1)).map(|(a, b)| a.0 * b.1 - b.0 * a.1).sum();
    let outside = points.iter().all(|p| p.1 as f64 > height() || p.1 < 0);
    if outside || (doubled as f64 / 2.0).abs() < MIN_AREA {
        return;
    }
    let mut last = points[0];
    let _ = write!(path, "M{} {}l", last.0, last.1);
    for (i, point) in points[1..].iter().enumerate() {
        let (dx, dy) = (point.0 - last.0, point.1 - last.1);
        let space = if i == 0 || dx < 0 { "" } else { " " };
        let _ = write!(path, "{space}{dx}{}{dy}", if dy < 0 { "" } else { " " });
        last = *point;
    }
    path.push('z');
}

#[test]
fn the_land_is_natural_earths() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/geo/land-110m.json");
    let Ok(text) = std::fs::read_to_string(&source) else {
        eprintln!("skipped: {} is absent", source.display());
        return;
    };
    let path = land(&serde_json::from_str(&text).unwrap());
    if std::env::var_os("UBIQUE_BLESS").is_some() {
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/report/land.svgpath"), path).unwrap();
        return;
    }
    assert!(path == LAND, "land.svgpath is stale: run the test once with UBIQUE_BLESS=1");
}
