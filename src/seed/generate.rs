//! A made-up data set: the same on every machine and in every run, so that tests and measurements can rely on it.

use std::collections::HashSet;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::{EVENTS, Error, Loaded, Table, URLS, USERS};
use crate::limits::SHORT_CODE_CHARS;
use crate::model::event::deleted_details;
use crate::model::{Click, Event, EventType, Id, NewUrl, ShortCode, ShortUrl, Timestamp, UrlPatch, User};
use crate::store::SeedData;

/// Users of the generated set.
pub const USER_COUNT: usize = 400;
/// Short URLs of the generated set.
pub const URL_COUNT: usize = 2_000;
/// Those of them that are switched off, each by a `deleted` event: 18 %.
pub const INACTIVE_URL_COUNT: usize = URL_COUNT * 18 / 100;
/// Events of the generated set.
pub const EVENT_COUNT: usize = 3_422;
/// Those of them that are updates.
pub const UPDATED_EVENT_COUNT: usize = 300;
/// Those of them that are redirects: what the others leave (each URL has a `created` event).
pub const REDIRECT_EVENT_COUNT: usize = EVENT_COUNT - URL_COUNT - INACTIVE_URL_COUNT - UPDATED_EVENT_COUNT;

/// Of a hundred URLs, those without an owner, and those without a title.
const UNOWNED_PERCENT: u64 = 5;
const UNTITLED_PERCENT: u64 = 10;

/// Any constant would do; a change of it changes every file.
const SEED: [u8; 32] = *b"snip: made-up users, URLs, visit";

const DAY_SECONDS: u64 = 24 * 60 * 60;
/// 2024-01-01 00:00:00 UTC: users register in the year from here, URLs are made in the year after.
const FIRST_DAY_SECONDS: u64 = 1_704_067_200;
const YEAR_SECONDS: u64 = 365 * DAY_SECONDS;

const ADJECTIVES: [&str; 24] = [
    "amber", "brisk", "copper", "dappled", "eager", "fern", "gentle", "hazel", "indigo", "jolly", "keen", "lucid",
    "misty", "nimble", "olive", "plucky", "quiet", "rustic", "sandy", "tawny", "umber", "velvet", "windy", "zesty",
];
const NOUNS: [&str; 24] = [
    "acorn", "badger", "cinder", "dune", "ember", "finch", "glacier", "heron", "islet", "juniper", "kestrel", "lichen",
    "marmot", "nettle", "otter", "pebble", "quill", "reed", "sorrel", "thistle", "urchin", "vole", "willow", "yarrow",
];
const TOPICS: [&str; 12] = [
    "Field notes",
    "Release checklist",
    "Reading list",
    "Workshop slides",
    "Trip plan",
    "Price sheet",
    "Survey",
    "Sign-up form",
    "Map",
    "Recipe",
    "Open positions",
    "Meeting minutes",
];
/// Reserved names (RFC 2606): no address of these reaches anybody.
const MAIL_DOMAINS: [&str; 4] = ["example.com", "example.org", "example.net", "mail.example.com"];
const SITES: [&str; 8] = [
    "https://example.com",
    "https://www.example.org",
    "https://docs.example.com",
    "https://shop.example.net",
    "https://blog.example.org",
    "http://old.example.com",
    "https://events.example.net:8443",
    "https://media.example.com",
];
/// Ends of targets that a careless program would change on the way.
const TARGET_ENDS: [&str; 6] = ["", "", "", "?ref=snip&lang=en", "/caf%C3%A9%20menu", "?q=a+b#section-2"];
/// Networks for documentation (RFC 5737).
const CLIENT_NETWORKS: [[u8; 3]; 3] = [[192, 0, 2], [198, 51, 100], [203, 0, 113]];
const USER_AGENTS: [&str; 5] = [
    "Mozilla/5.0 (X11; Linux x86_64) Heron/12.1",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_5) Heron/12.0 Mobile",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Kestrel/7.4",
    "OtterBot/1.3 (+https://example.org/bot)",
    "curl/8.5.0",
];

const _: () = assert!(URL_COUNT + INACTIVE_URL_COUNT + UPDATED_EVENT_COUNT < EVENT_COUNT);

/// Writes the made-up data set into the folder, which is made if it is missing; files of these names are overwritten.
pub fn generate(dir: &Path) -> Result<Loaded, Error> {
    let data = data_set();
    fs::create_dir_all(dir).map_err(|error| Error::Write(dir.to_owned(), error))?;
    write(dir, &USERS, data.users.iter().map(user_fields))?;
    write(dir, &URLS, data.urls.iter().map(url_fields))?;
    write(dir, &EVENTS, data.events.iter().map(event_fields))?;
    Ok(Loaded::of(&data))
}

// ---- Files -----------------------------------------------------------------------------------------------------

fn write<const N: usize>(dir: &Path, table: &Table, rows: impl Iterator<Item = [String; N]>) -> Result<(), Error> {
    let path = dir.join(table.file);
    let written = File::create(&path).map_err(csv::Error::from).and_then(|file| {
        let mut writer = csv::Writer::from_writer(file);
        writer.write_record(table.columns)?;
        for row in rows {
            writer.write_record(row)?;
        }
        Ok(writer.flush()?)
    });
    written.map_err(|error| Error::Write(path, error.into()))
}

fn id_field(id: Option<Id>) -> String {
    id.map(|id| id.to_string()).unwrap_or_default()
}

fn time_field(time: Timestamp) -> String {
    String::from_utf8_lossy(&time.text()).replace('T', " ")
}

fn user_fields(user: &User) -> [String; 4] {
    [user.id.to_string(), user.username.clone(), user.email.clone(), time_field(user.created_at)]
}

fn url_fields(url: &ShortUrl) -> [String; 8] {
    [
        url.id.to_string(),
        id_field(url.user_id),
        url.short_code.clone(),
        url.original_url.clone(),
        url.title.clone().unwrap_or_default(),
        String::from(if url.is_active { "True" } else { "False" }),
        time_field(url.created_at),
        time_field(url.updated_at),
    ]
}

fn event_fields(event: &Event) -> [String; 6] {
    [
        event.id.to_string(),
        event.url_id.to_string(),
        id_field(event.user_id),
        event.event_type.clone(),
        time_field(event.timestamp),
        event.details.clone().unwrap_or_default(),
    ]
}

// ---- Content ---------------------------------------------------------------------------------------------------

/// Draws that depend on nothing but the stream of ChaCha: the distributions of `rand` may change with its versions.
struct Draw(ChaCha8Rng);

impl Draw {
    /// A number below `bound`. The remainder favours small numbers by less than anyone can see.
    fn below(&mut self, bound: u64) -> u64 {
        self.0.next_u64() % bound
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// A whole second between the two, the later excluded.
    fn time(&mut self, from: Timestamp, to: Timestamp) -> Timestamp {
        let seconds = (to.micros() - from.micros()).max(1_000_000) as u64 / 1_000_000;
        later(from, self.below(seconds))
    }

    fn short_code(&mut self) -> ShortCode {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        (0..SHORT_CODE_CHARS).map(|_| char::from(self.one_of(ALPHABET))).collect()
    }
}

fn later(time: Timestamp, seconds: u64) -> Timestamp {
    Timestamp::from_micros(time.micros() + seconds as i64 * 1_000_000)
}

fn data_set() -> SeedData {
    let mut draw = Draw(ChaCha8Rng::from_seed(SEED));
    let first_day = later(Timestamp::from_micros(0), FIRST_DAY_SECONDS);
    let users = users(&mut draw, first_day);
    let mut urls = urls(&mut draw, later(first_day, YEAR_SECONDS));
    switch_some_off(&mut draw, &mut urls);
    let events = events(&mut draw, &mut urls);
    SeedData { users, urls, events }
}

fn users(draw: &mut Draw, year: Timestamp) -> Vec<User> {
    let mut names = HashSet::new();
    let mut users = Vec::with_capacity(USER_COUNT);
    while users.len() < USER_COUNT {
        let username = format!("{}{}{:02}", draw.one_of(&ADJECTIVES), draw.one_of(&NOUNS), draw.below(100));
        if !names.insert(username.clone()) {
            continue;
        }
        users.push(User {
            id: users.len() as Id + 1,
            email: format!("{username}@{}", draw.one_of(&MAIL_DOMAINS)),
            username,
            created_at: draw.time(year, later(year, YEAR_SECONDS)),
        });
    }
    users
}

fn urls(draw: &mut Draw, year: Timestamp) -> Vec<ShortUrl> {
    let mut codes = HashSet::new();
    let mut urls = Vec::with_capacity(URL_COUNT);
    while urls.len() < URL_COUNT {
        let short_code = draw.short_code();
        if !codes.insert(short_code.clone()) {
            continue;
        }
        urls.push(url(draw, urls.len() as Id + 1, short_code, year));
    }
    urls
}

fn url(draw: &mut Draw, id: Id, short_code: ShortCode, year: Timestamp) -> ShortUrl {
    let owner = draw.below(USER_COUNT as u64) as Id + 1;
    let path = format!("{}/{}/{id}", draw.one_of(&ADJECTIVES), draw.one_of(&NOUNS));
    let title = format!("{} {}", draw.one_of(&TOPICS), draw.one_of(&NOUNS));
    let created_at = draw.time(year, later(year, YEAR_SECONDS));
    ShortUrl {
        id,
        user_id: (!draw.percent(UNOWNED_PERCENT)).then_some(owner),
        short_code,
        original_url: format!("{}/{path}{}", draw.one_of(&SITES), draw.one_of(&TARGET_ENDS)),
        title: (!draw.percent(UNTITLED_PERCENT)).then_some(title),
        is_active: true,
        created_at,
        updated_at: created_at,
    }
}

fn switch_some_off(draw: &mut Draw, urls: &mut [ShortUrl]) {
    let mut left = INACTIVE_URL_COUNT;
    while left > 0 {
        let url = &mut urls[draw.below(URL_COUNT as u64) as usize];
        if url.is_active {
            url.is_active = false;
            left -= 1;
        }
    }
}

/// The histories of all URLs: the creations in the order of the ids, then the rest in the order of time. A URL lives
/// for one to two months; what happens to it happens then, and its deletion comes last.
fn events(draw: &mut Draw, urls: &mut [ShortUrl]) -> Vec<Event> {
    let ends: Vec<Timestamp> =
        urls.iter().map(|url| later(url.created_at, 30 * DAY_SECONDS + draw.below(30 * DAY_SECONDS))).collect();
    let mut later_events = Vec::with_capacity(EVENT_COUNT - URL_COUNT);
    for _ in 0..REDIRECT_EVENT_COUNT {
        let at = draw.below(URL_COUNT as u64) as usize;
        later_events.push(redirect(draw, &urls[at], ends[at]));
    }
    for _ in 0..UPDATED_EVENT_COUNT {
        let at = draw.below(URL_COUNT as u64) as usize;
        later_events.push(update(draw, &mut urls[at], ends[at]));
    }
    for (url, &end) in urls.iter_mut().zip(&ends).filter(|(url, _)| !url.is_active) {
        url.updated_at = end;
        later_events.push(event(url, EventType::Deleted, end, deleted_details().finish()));
    }
    later_events.sort_by_key(|event| event.timestamp);
    let mut events: Vec<Event> = urls.iter().map(creation).collect();
    events.append(&mut later_events);
    for (id, event) in (1..).zip(&mut events) {
        event.id = id;
    }
    events
}

/// An event without its id, which its place in the file gives it.
fn event(url: &ShortUrl, event_type: EventType, timestamp: Timestamp, details: String) -> Event {
    let event_type = event_type.as_str().to_owned();
    Event { id: 0, url_id: url.id, user_id: url.user_id, event_type, timestamp, details: Some(details) }
}

fn creation(url: &ShortUrl) -> Event {
    let new = NewUrl {
        user_id: url.user_id,
        short_code: url.short_code.clone(),
        original_url: url.original_url.clone(),
        title: url.title.clone(),
    };
    let (event_type, details) = new.created_event();
    event(url, event_type, url.created_at, details.finish())
}

fn redirect(draw: &mut Draw, url: &ShortUrl, end: Timestamp) -> Event {
    let [a, b, c] = draw.one_of(&CLIENT_NETWORKS);
    let click = Click {
        url_id: url.id,
        user_id: url.user_id,
        at: draw.time(url.created_at, end),
        client: Some(IpAddr::V4(Ipv4Addr::new(a, b, c, draw.below(254) as u8 + 1))),
        user_agent: Some(draw.one_of(&USER_AGENTS).into()),
        referrer: None,
    };
    event(url, EventType::Redirect, click.at, click.details())
}

/// An update to what the row holds, so that the last one agrees with it.
fn update(draw: &mut Draw, url: &mut ShortUrl, end: Timestamp) -> Event {
    let at = draw.time(url.created_at, end);
    url.updated_at = url.updated_at.max(at);
    let patch = if url.is_active && draw.percent(25) {
        UrlPatch { is_active: Some(true), ..UrlPatch::default() }
    } else {
        UrlPatch { title: Some(url.title.clone()), ..UrlPatch::default() }
    };
    let details = patch.updated_events().pop().map(|(_, details)| details.finish());
    Event { details, ..event(url, EventType::Updated, at, String::new()) }
}
