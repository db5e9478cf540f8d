//! Places on Earth, and the names operators call them by.
//!
//! [`Location::resolve`] understands `City, CC`, `City`, IATA codes and `52.37,4.90`. Cities come from
//! `data/cities.txt` (GeoNames, CC BY 4.0, see NOTICE): one line for each, most populous first, scanned without allocating.
//! Deliberately absent: regions, streets, distances along roads or cables.

mod airports;
mod countries;
mod places;

use serde::{Deserialize, Serialize};

use crate::read::suggest;

/// A place: a city, an airport or bare coordinates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Location {
    /// What the user wrote, normalised: `Amsterdam, NL`.
    pub name: String,
    /// Degrees north, -90 to 90.
    pub latitude: f64,
    /// Degrees east, -180 to 180.
    pub longitude: f64,
}

/// Mean Earth radius, km.
const EARTH_RADIUS_KM: f64 = 6371.0;

/// Most suggestions for an unknown place.
const MAX_SUGGESTIONS: usize = 3;

/// Longest text compared with city names, characters.
const MAX_PLACE_CHARS: usize = 80;

/// Name, name in ASCII when different, country, degrees north, degrees east; sorted by population.
static CITIES: &str = include_str!("../data/cities.txt");

/// Why a text names no place.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LocationError {
    /// No city or airport is called so.
    #[error("no place \"{text}\" is known")]
    Unknown {
        /// What was written.
        text: String,
        /// Names of places spelled alike, best first.
        suggestions: Vec<String>,
    },
    /// No country has this code or name.
    #[error("no country \"{text}\" is known")]
    UnknownCountry {
        /// What was written.
        text: String,
        /// The city in the countries it is in, most populous first.
        suggestions: Vec<String>,
    },
    /// Coordinates outside the Earth.
    #[error("coordinates {latitude},{longitude} are out of range")]
    OutOfRange {
        /// Degrees north.
        latitude: f64,
        /// Degrees east.
        longitude: f64,
    },
}

impl LocationError {
    /// Places that were probably meant, best first.
    pub fn suggestions(&self) -> &[String] {
        match self {
            LocationError::Unknown { suggestions, .. } | LocationError::UnknownCountry { suggestions, .. } => {
                suggestions
            }
            LocationError::OutOfRange { .. } => &[],
        }
    }

    /// What to write instead.
    pub fn fix(&self) -> String {
        if let LocationError::OutOfRange { latitude, longitude } = self {
            if latitude.abs() <= 180.0 && longitude.abs() <= 90.0 {
                return format!("latitude comes first: did you mean \"{longitude},{latitude}\"?");
            }
            return "write latitude -90 to 90, then longitude -180 to 180, e.g. \"52.37,4.90\"".to_owned();
        }
        match self.suggestions() {
            [] => "write \"City, CC\", an IATA code, or coordinates such as \"52.37,4.90\"".to_owned(),
            [one] => format!("did you mean \"{one}\"? Coordinates such as \"52.37,4.90\" work for any place"),
            many => format!(
                "did you mean \"{}\"? Coordinates such as \"52.37,4.90\" work for any place",
                many.join("\", \"")
            ),
        }
    }
}

/// A line of the city table.
#[derive(Clone, Copy)]
struct City {
    name: &'static str,
    ascii: &'static str,
    country: &'static str,
    /// Still text: parsing every line would dominate a search.
    latitude: &'static str,
    longitude: &'static str,
}

impl City {
    fn location(&self) -> Location {
        Location {
            name: format!("{}, {}", self.name, self.country),
            latitude: degrees(self.latitude),
            longitude: degrees(self.longitude),
        }
    }

    fn is_called(&self, name: &str) -> bool {
        same_word(self.name, name) || (!self.ascii.is_empty() && same_word(self.ascii, name))
    }
}

/// A coordinate of the committed table; a test reads every line of it.
fn degrees(text: &str) -> f64 {
    text.parse().unwrap_or_default()
}

/// Every city, most populous first; then small places that matter to networks.
fn cities() -> impl Iterator<Item = City> {
    CITIES.lines().chain(places::SMALL_PLACES.lines()).filter_map(|line| {
        let mut parts = line.split('|');
        Some(City {
            name: parts.next()?,
            ascii: parts.next()?,
            country: parts.next()?,
            latitude: parts.next()?,
            longitude: parts.next()?,
        })
    })
}

/// Equal but for case, typographic apostrophes and combining accents.
fn same_word(a: &str, b: &str) -> bool {
    if a.is_ascii() && b.is_ascii() {
        return a.eq_ignore_ascii_case(b);
    }
    folded(a).eq(folded(b))
}

fn folded(word: &str) -> impl Iterator<Item = char> + '_ {
    word.chars().filter(|c| !('\u{300}'..='\u{36f}').contains(c)).flat_map(char::to_lowercase).map(|c| match c {
        '’' | '‘' => '\'',
        c => c,
    })
}

impl Location {
    /// Great-circle distance in km (haversine).
    pub fn distance_km(&self, other: &Location) -> f64 {
        let (lat1, lat2) = (self.latitude.to_radians(), other.latitude.to_radians());
        let dlat = lat2 - lat1;
        let dlon = (other.longitude - self.longitude).to_radians();
        let h = (dlat / 2.0).sin().powi(2) + lat1.cos() * lat2.cos() * (dlon / 2.0).sin().powi(2);
        2.0 * EARTH_RADIUS_KM * h.sqrt().min(1.0).asin()
    }

    /// The place a text names: `Amsterdam, NL`, `Amsterdam` (the most populous one), `AMS`, `52.37,4.90`.
    ///
    /// # Errors
    /// When no such place or country is known, with what was probably meant, or when coordinates are out of range.
    pub fn resolve(text: &str) -> Result<Location, LocationError> {
        let text = text.trim();
        if let Some(location) = coordinates(text)? {
            return Ok(location);
        }
        let is_code = text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase());
        if is_code && let Some(location) = airport(text) {
            return Ok(location);
        }
        if let Some((city, country)) = text.rsplit_once(',') {
            return in_country(text, city.trim(), country.trim());
        }
        if let Some(location) = city(text, None) {
            return Ok(location);
        }
        airport(text).ok_or_else(|| LocationError::Unknown { text: text.to_owned(), suggestions: alike(text, None) })
    }
}

/// `LAT,LON`; `None` when the text has another form.
fn coordinates(text: &str) -> Result<Option<Location>, LocationError> {
    let Some((latitude, longitude)) = text.split_once(',') else {
        return Ok(None);
    };
    let (Ok(latitude), Ok(longitude)) = (latitude.trim().parse::<f64>(), longitude.trim().parse::<f64>()) else {
        return Ok(None);
    };
    if !(-90.0..=90.0).contains(&latitude) || !(-180.0..=180.0).contains(&longitude) {
        return Err(LocationError::OutOfRange { latitude, longitude });
    }
    // Adding zero turns -0 into 0, which prints without a sign.
    let (latitude, longitude) = (latitude + 0.0, longitude + 0.0);
    Ok(Some(Location { name: format!("{latitude},{longitude}"), latitude, longitude }))
}

fn airport(code: &str) -> Option<Location> {
    let (_, name, country) = airports::AIRPORTS.iter().find(|(iata, _, _)| iata.eq_ignore_ascii_case(code))?;
    city(name, Some(country))
}

/// The most populous city of that name, in one country or anywhere.
fn city(name: &str, country: Option<&str>) -> Option<Location> {
    let lies_in = |c: &str| country.is_none_or(|wanted| c == wanted);
    let listed = cities().find(|c| lies_in(c.country) && c.is_called(name));
    let found = listed.or_else(|| {
        let (_, official, alias_country) =
            places::OTHER_NAMES.iter().find(|(other, _, c)| lies_in(c) && same_word(other, name))?;
        cities().find(|c| c.country == *alias_country && c.name == *official)
    });
    found.map(|c| c.location())
}

fn in_country(text: &str, name: &str, country: &str) -> Result<Location, LocationError> {
    let Some(code) = countries::code(country) else {
        let mut suggestions: Vec<String> =
            cities().filter(|c| c.is_called(name)).map(|c| format!("{}, {}", c.name, c.country)).collect();
        suggestions.truncate(MAX_SUGGESTIONS);
        return Err(LocationError::UnknownCountry { text: country.to_owned(), suggestions });
    };
    city(name, Some(code)).ok_or_else(|| {
        let mut suggestions = alike(name, Some(code));
        if let Some(elsewhere) = city(name, None) {
            suggestions.insert(0, elsewhere.name);
            suggestions.truncate(MAX_SUGGESTIONS);
        }
        LocationError::Unknown { text: text.to_owned(), suggestions }
    })
}

/// Places spelled alike: fewest differences first, then the most populous.
fn alike(name: &str, country: Option<&str>) -> Vec<String> {
    if name.chars().nth(MAX_PLACE_CHARS).is_some() {
        return Vec::new();
    }
    let limit = suggest::allowed(name);
    let mut found: Vec<(usize, usize, City)> = cities()
        .enumerate()
        .filter(|(_, c)| country.is_none_or(|wanted| c.country == wanted))
        .filter_map(|(rank, c)| {
            let spelled = suggest::distance(name, c.name, limit);
            let ascii = if c.ascii.is_empty() { None } else { suggest::distance(name, c.ascii, limit) };
            Some((spelled.into_iter().chain(ascii).min()?, rank, c))
        })
        .collect();
    found.sort_unstable_by_key(|&(distance, rank, _)| (distance, rank));
    let best = found.first().map_or(0, |f| f.0);
    found.iter().filter(|f| f.0 == best).take(MAX_SUGGESTIONS).map(|(_, _, c)| c.location().name).collect()
}

#[cfg(test)]
mod tests;
