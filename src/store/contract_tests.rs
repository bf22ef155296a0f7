//! What every store must do, whatever it is made of: each function wants an empty store and tries one area of the
//! trait. A new store runs [`check_all`] with a maker of empty stores.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::{SeedData, Store};
use crate::error::{Constraint, Reference, StoreError};
use crate::limits::LINK_CHANGES_PAGE;
use crate::model::{
    ChangeCursor, ChangedUrl, Click, Event, EventFilter, Id, JournalId, JournalStep, LinkState, NewEvent, NewUrl,
    NewUser, Page, ShortUrl, Start, Target, Timestamp, UrlFilter, UrlPatch, User, UserPatch,
};

/// Runs every check on an empty store of its own, which comes with what must outlive it (a folder, say).
pub(super) fn check_all<S: Store, G>(empty: impl Fn() -> (S, G)) {
    let checks: [fn(&dyn Store); 20] = [
        users_are_made_and_found,
        users_are_changed,
        user_conflicts,
        deleted_users_leave_their_rows,
        imports_skip_collisions,
        urls_are_made_with_their_event,
        url_refusals,
        urls_are_changed_with_their_events,
        urls_are_deleted_once,
        url_lists_are_filtered_and_paged,
        user_lists_are_paged,
        event_lists_are_newest_first,
        events_are_made,
        clicks_are_counted,
        clicks_of_a_step_are_stored_once,
        journals_are_told_apart,
        data_sets_are_loaded,
        links_have_versions,
        changes_of_links_are_listed,
        active_links_are_walked_downwards,
    ];
    for check in checks {
        let (store, _outlives) = empty();
        check(&store);
    }
}

fn new_user(name: &str) -> NewUser {
    NewUser { username: name.into(), email: format!("{name}@example.com"), created_at: None }
}

fn new_url(code: &str, user_id: Option<Id>) -> NewUrl {
    let original_url = format!("https://example.com/{code}?q=%20#f");
    NewUrl { user_id, short_code: code.into(), original_url, title: Some("A title".into()) }
}

fn new_event(url_id: Id, user_id: Option<Id>, event_type: &str) -> NewEvent {
    NewEvent { url_id, user_id, event_type: event_type.into(), details: Some(r#"{"a": 1}"#.into()) }
}

fn click(url_id: Id, user_id: Option<Id>, at: i64) -> Click {
    let client = Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)));
    Click { url_id, user_id, at: Timestamp::from_micros(at), client, user_agent: Some("agent".into()), referrer: None }
}

fn step(journal: u8, from: u64, to: u64) -> JournalStep {
    JournalStep { journal: JournalId([journal; 16]), instance: "test".into(), from, to }
}

fn offset(rows: u64, limit: u32) -> Page {
    Page { start: Start::Offset(rows), limit }
}

fn after(id: Id, limit: u32) -> Page {
    Page { start: Start::AfterId(id), limit }
}

fn all_events(store: &dyn Store, filter: EventFilter) -> Vec<Event> {
    store.events(filter, offset(0, 100)).unwrap()
}

fn event_types(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.event_type.as_str()).collect()
}

fn event_ids(events: &[Event]) -> Vec<Id> {
    events.iter().map(|event| event.id).collect()
}

fn users_are_made_and_found(store: &dyn Store) {
    store.health().unwrap();
    assert_eq!(store.users(offset(0, 100)).unwrap(), []);
    let before = Timestamp::now();
    let ann = store.create_user(new_user("ann")).unwrap();
    assert!(ann.created_at >= before && ann.created_at <= Timestamp::now());
    let given = Timestamp::from_micros(1_234_567);
    let bob = store.create_user(NewUser { created_at: Some(given), ..new_user("bob") }).unwrap();
    assert_eq!(bob, User { id: bob.id, username: "bob".into(), email: "bob@example.com".into(), created_at: given });
    assert!(bob.id > ann.id);
    assert_eq!(store.user(ann.id).unwrap(), Some(ann.clone()));
    assert_eq!(store.users(offset(0, 100)).unwrap(), [ann, bob]);
    for unknown in [0, -1, 99, Id::MAX, Id::MIN] {
        assert_eq!(store.user(unknown).unwrap(), None);
    }
}

fn users_are_changed(store: &dyn Store) {
    let ann = store.create_user(new_user("ann")).unwrap();
    let name = UserPatch { username: Some("anna".into()), email: None };
    let email = UserPatch { username: None, email: Some("anna@example.org".into()) };
    assert_eq!(store.update_user(ann.id, UserPatch::default()).unwrap(), Some(ann.clone()));
    assert_eq!(store.update_user(99, name.clone()).unwrap(), None);
    let renamed = User { username: "anna".into(), ..ann.clone() };
    assert_eq!(store.update_user(ann.id, name).unwrap(), Some(renamed.clone()));
    let moved = User { email: "anna@example.org".into(), ..renamed };
    assert_eq!(store.update_user(ann.id, email).unwrap(), Some(moved.clone()));
    assert_eq!(store.user(ann.id).unwrap(), Some(moved));
}

fn user_conflicts(store: &dyn Store) {
    let ann = store.create_user(new_user("ann")).unwrap();
    let bob = store.create_user(new_user("bob")).unwrap();
    let username = StoreError::Conflict(Constraint::Username);
    let email = StoreError::Conflict(Constraint::Email);
    let same_email = NewUser { email: ann.email.clone(), ..new_user("other") };
    let same_name = NewUser { email: "other@example.com".into(), ..new_user("ann") };
    assert_eq!(store.create_user(new_user("ann")), Err(username.clone()), "the name comes first");
    assert_eq!(store.create_user(same_name), Err(username.clone()));
    assert_eq!(store.create_user(same_email), Err(email.clone()));
    let patch = |username: Option<&str>, email: Option<&str>| UserPatch {
        username: username.map(str::to_owned),
        email: email.map(str::to_owned),
    };
    assert_eq!(store.update_user(bob.id, patch(Some("ann"), None)), Err(username));
    assert_eq!(store.update_user(bob.id, patch(None, Some("ann@example.com"))), Err(email));
    assert_eq!(store.update_user(bob.id, patch(Some("bob"), None)).unwrap(), Some(bob.clone()), "its own name");
    assert!(store.create_user(new_user("Ann")).is_ok(), "names are told apart by case");
    assert_eq!(store.user(bob.id).unwrap(), Some(bob));
}

fn deleted_users_leave_their_rows(store: &dyn Store) {
    let ann = store.create_user(new_user("ann")).unwrap().id;
    let bob = store.create_user(new_user("bob")).unwrap().id;
    let of_ann = store.create_url(new_url("annurl", Some(ann))).unwrap();
    let of_bob = store.create_url(new_url("boburl", Some(bob))).unwrap();
    store.create_event(new_event(of_bob.id, Some(ann), "seen")).unwrap();
    assert!(store.delete_user(ann).unwrap());
    assert!(!store.delete_user(ann).unwrap());
    assert_eq!(store.user(ann).unwrap(), None);
    assert_eq!(store.url(of_ann.id).unwrap(), Some(ShortUrl { user_id: None, ..of_ann.clone() }));
    assert_eq!(store.url(of_bob.id).unwrap(), Some(of_bob.clone()));
    assert_eq!(store.resolve("annurl").unwrap().unwrap().user_id, None);
    let owners: Vec<_> = all_events(store, EventFilter::default()).iter().map(|event| event.user_id).collect();
    assert_eq!(owners, [None, Some(bob), None], "of seen, created by bob, created by ann");
    // A click that was under way meanwhile.
    let clicks = vec![click(of_ann.id, Some(ann), 1), click(of_bob.id, Some(bob), 2)];
    store.record_clicks(Arc::new(clicks), step(1, 0, 2)).unwrap();
    let clicks = all_events(store, EventFilter { event_type: Some("redirect".into()), ..EventFilter::default() });
    assert_eq!(clicks.iter().map(|event| event.user_id).collect::<Vec<_>>(), [Some(bob), None]);
}

fn imports_skip_collisions(store: &dyn Store) {
    store.create_user(new_user("ann")).unwrap();
    let given = Timestamp::from_micros(5_000_000);
    let rows = vec![
        NewUser { created_at: Some(given), ..new_user("new") },
        new_user("ann"),
        NewUser { email: "ann@example.com".into(), ..new_user("other") },
        NewUser { email: "second@example.com".into(), ..new_user("new") },
        new_user("last"),
    ];
    assert_eq!(store.import_users(rows).unwrap(), 2);
    assert_eq!(store.import_users(Vec::new()).unwrap(), 0);
    let users = store.users(offset(0, 100)).unwrap();
    assert_eq!(users.iter().map(|user| user.username.as_str()).collect::<Vec<_>>(), ["ann", "new", "last"]);
    assert_eq!(users[1].created_at, given);
}

fn urls_are_made_with_their_event(store: &dyn Store) {
    let ann = store.create_user(new_user("ann")).unwrap().id;
    let new = new_url("abc123", Some(ann));
    let url = store.create_url(new.clone()).unwrap();
    assert!(url.is_active);
    assert_eq!((url.user_id, &url.short_code, &url.title), (Some(ann), &new.short_code, &new.title));
    assert_eq!(url.original_url, new.original_url);
    assert_eq!(url.created_at, url.updated_at);
    assert_eq!(store.url(url.id).unwrap(), Some(url.clone()));
    let plain = store.create_url(NewUrl { title: None, ..new_url("plain1", None) }).unwrap();
    assert_eq!((plain.user_id, plain.title), (None, None));
    let created = store.url_events(url.id, offset(0, 10)).unwrap().unwrap();
    assert_eq!(created.len(), 1);
    assert_eq!(created[0].event_type, "created");
    assert_eq!((created[0].url_id, created[0].user_id), (url.id, Some(ann)));
    assert_eq!(created[0].timestamp, url.created_at);
    assert_eq!(created[0].details, Some(new.created_event().1.finish()));
    let target = Target { url_id: url.id, user_id: Some(ann), version: 1, original_url: url.original_url };
    assert_eq!(store.resolve("abc123").unwrap(), Some(target));
    assert_eq!(store.resolve("ABC123").unwrap(), None, "codes are told apart by case");
    assert_eq!(store.active_urls().unwrap(), 2);
    assert_eq!(store.url_events(99, offset(0, 10)).unwrap(), None);
    assert_eq!(store.url_stats(99).unwrap(), None);
}

fn url_refusals(store: &dyn Store) {
    store.create_url(new_url("abc123", None)).unwrap();
    let taken = StoreError::Conflict(Constraint::ShortCode);
    assert_eq!(store.create_url(new_url("abc123", None)), Err(taken));
    assert_eq!(store.create_url(new_url("def456", Some(99))), Err(StoreError::Missing(Reference::User)));
    assert_eq!(store.urls(UrlFilter::default(), offset(0, 10)).unwrap().len(), 1);
    assert_eq!(all_events(store, EventFilter::default()).len(), 1, "a refused URL leaves no event");
}

fn urls_are_changed_with_their_events(store: &dyn Store) {
    let ann = store.create_user(new_user("ann")).unwrap().id;
    let url = store.create_url(new_url("abc123", Some(ann))).unwrap();
    assert_eq!(
        store.update_url(url.id, UrlPatch::default()).unwrap(),
        Some(ChangedUrl { url: url.clone(), version: 1 })
    );
    assert_eq!(store.update_url(99, UrlPatch { is_active: Some(true), ..UrlPatch::default() }).unwrap(), None);
    let patch =
        UrlPatch { original_url: Some("https://example.org/new".into()), title: Some(None), is_active: Some(false) };
    let ChangedUrl { url: changed, version } = store.update_url(url.id, patch.clone()).unwrap().unwrap();
    assert_eq!(version, 2);
    assert!(changed.updated_at > url.updated_at);
    let expected = ShortUrl {
        original_url: "https://example.org/new".into(),
        title: None,
        is_active: false,
        updated_at: changed.updated_at,
        ..url.clone()
    };
    assert_eq!(changed, expected);
    assert_eq!(store.url(url.id).unwrap(), Some(expected.clone()));
    assert_eq!(store.resolve("abc123").unwrap(), None);
    assert_eq!(store.active_urls().unwrap(), 0);
    let events = store.url_events(url.id, offset(0, 10)).unwrap().unwrap();
    assert_eq!(event_types(&events), ["updated", "updated", "updated", "created"]);
    let written: Vec<_> = events[..3].iter().rev().map(|event| event.details.clone().unwrap()).collect();
    let wanted: Vec<_> = patch.updated_events().into_iter().map(|(_, details)| details.finish()).collect();
    assert_eq!(written, wanted);
    assert!(events.iter().all(|event| event.user_id == Some(ann)));
    let titled = UrlPatch { title: Some(Some("New".into())), ..UrlPatch::default() };
    let titled = store.update_url(url.id, titled).unwrap().unwrap().url;
    assert_eq!(titled, ShortUrl { title: Some("New".into()), updated_at: titled.updated_at, ..expected });
    store.update_url(url.id, UrlPatch { is_active: Some(true), ..UrlPatch::default() }).unwrap();
    assert_eq!(store.resolve("abc123").unwrap().unwrap().original_url, "https://example.org/new");
}

fn urls_are_deleted_once(store: &dyn Store) {
    let ann = store.create_user(new_user("ann")).unwrap().id;
    let url = store.create_url(new_url("abc123", Some(ann))).unwrap();
    let deleted = store.delete_url(url.id).unwrap().unwrap().url;
    assert_eq!(store.delete_url(url.id).unwrap(), None);
    assert_eq!(store.delete_url(99).unwrap(), None);
    assert_eq!(store.url(url.id).unwrap(), Some(deleted.clone()));
    assert!(!deleted.is_active && deleted.updated_at > url.updated_at);
    assert_eq!(store.resolve("abc123").unwrap(), None);
    assert_eq!(store.active_urls().unwrap(), 0);
    let events = store.url_events(url.id, offset(0, 10)).unwrap().unwrap();
    assert_eq!(event_types(&events), ["deleted", "created"]);
    assert_eq!(events[0].user_id, Some(ann));
    assert_eq!(events[0].details.as_deref(), Some(r#"{"reason": "user_requested"}"#));
}

fn url_lists_are_filtered_and_paged(store: &dyn Store) {
    let ann = store.create_user(new_user("ann")).unwrap().id;
    let bob = store.create_user(new_user("bob")).unwrap().id;
    let owners = [Some(ann), None, Some(bob), Some(ann), None, Some(ann)];
    let ids: Vec<Id> = (0..)
        .zip(owners)
        .map(|(n, owner)| store.create_url(new_url(&format!("code-{n}"), owner)).unwrap().id)
        .collect();
    store.delete_url(ids[3]).unwrap();
    store.delete_url(ids[4]).unwrap();
    let check = |user_id: Option<Id>, is_active: Option<bool>, page: Page, expected: &[usize]| {
        let filter = UrlFilter { user_id, is_active };
        let found: Vec<Id> = store.urls(filter, page).unwrap().iter().map(|url| url.id).collect();
        let expected: Vec<Id> = expected.iter().map(|&n| ids[n]).collect();
        assert_eq!(found, expected, "{filter:?} {page:?}");
    };
    check(None, None, offset(0, 100), &[0, 1, 2, 3, 4, 5]);
    check(None, None, offset(2, 3), &[2, 3, 4]);
    check(None, None, offset(6, 3), &[]);
    check(None, None, offset(i64::MAX as u64, 3), &[]);
    check(None, None, after(ids[2], 2), &[3, 4]);
    check(None, None, after(0, 2), &[0, 1]);
    check(None, None, after(ids[5], 2), &[]);
    check(None, Some(true), offset(0, 100), &[0, 1, 2, 5]);
    check(None, Some(false), offset(0, 100), &[3, 4]);
    check(None, Some(true), after(ids[1], 100), &[2, 5]);
    check(Some(ann), None, offset(0, 100), &[0, 3, 5]);
    check(Some(ann), None, offset(1, 1), &[3]);
    check(Some(ann), None, after(ids[0], 100), &[3, 5]);
    check(Some(ann), Some(true), offset(0, 100), &[0, 5]);
    check(Some(ann), Some(false), offset(0, 100), &[3]);
    check(Some(ann), Some(true), after(ids[0], 100), &[5]);
    check(Some(99), None, offset(0, 100), &[]);
}

fn user_lists_are_paged(store: &dyn Store) {
    let ids: Vec<Id> = (0..5).map(|n| store.create_user(new_user(&format!("user{n}"))).unwrap().id).collect();
    let check = |page: Page, expected: &[usize]| {
        let found: Vec<Id> = store.users(page).unwrap().iter().map(|user| user.id).collect();
        assert_eq!(found, expected.iter().map(|&n| ids[n]).collect::<Vec<_>>(), "{page:?}");
    };
    check(offset(0, 2), &[0, 1]);
    check(offset(4, 2), &[4]);
    check(offset(5, 2), &[]);
    check(after(ids[1], 2), &[2, 3]);
    // A row that is gone still marks its place.
    store.delete_user(ids[2]).unwrap();
    check(after(ids[2], 2), &[3, 4]);
}

/// A data set whose events are not in the order of their ids, and two of them at one time.
fn history() -> SeedData {
    let at = Timestamp::from_micros;
    let user = |id, name: &str| User {
        id,
        username: name.into(),
        email: format!("{name}@example.com"),
        created_at: at(1_000_000),
    };
    let url = |id, user_id, code: &str, is_active| ShortUrl {
        id,
        user_id,
        short_code: code.into(),
        original_url: format!("https://example.com/{code}"),
        title: None,
        is_active,
        created_at: at(2_000_000),
        updated_at: at(3_000_000),
    };
    let event = |id, url_id, user_id, event_type: &str, seconds: i64| Event {
        id,
        url_id,
        user_id,
        event_type: event_type.into(),
        timestamp: at(seconds * 1_000_000),
        details: None,
    };
    SeedData {
        users: vec![user(3, "ann"), user(7, "bob")],
        urls: vec![url(5, Some(3), "code-5", true), url(11, None, "code-11", false)],
        events: vec![
            event(1, 5, Some(3), "created", 50),
            event(2, 11, None, "created", 20),
            event(3, 5, Some(7), "redirect", 60),
            event(4, 5, Some(3), "redirect", 40),
            event(8, 5, None, "updated", 40),
            event(9, 11, Some(7), "redirect", 70),
        ],
    }
}

fn event_lists_are_newest_first(store: &dyn Store) {
    store.load(history(), false).unwrap();
    let check = |event_type: &str, url_id: Id, user_id: Id, page: Page, expected: &[Id]| {
        let filter = EventFilter {
            event_type: Some(event_type.to_owned()).filter(|text| !text.is_empty()),
            url_id: Some(url_id).filter(|&id| id != 0),
            user_id: Some(user_id).filter(|&id| id != 0),
        };
        assert_eq!(event_ids(&store.events(filter.clone(), page).unwrap()), expected, "{filter:?} {page:?}");
    };
    check("", 0, 0, offset(0, 100), &[9, 3, 1, 8, 4, 2]);
    check("", 0, 0, offset(2, 2), &[1, 8]);
    check("", 0, 0, offset(6, 2), &[]);
    check("", 0, 0, after(1, 2), &[8, 4]);
    check("", 0, 0, after(8, 2), &[4, 2]);
    check("", 0, 0, after(2, 2), &[]);
    check("", 0, 0, after(99, 2), &[]);
    check("redirect", 0, 0, offset(0, 100), &[9, 3, 4]);
    check("redirect", 0, 0, after(1, 100), &[4]);
    check("", 5, 0, offset(0, 100), &[3, 1, 8, 4]);
    check("", 5, 0, after(9, 2), &[3, 1]);
    check("", 0, 7, offset(0, 100), &[9, 3]);
    check("", 0, 7, after(9, 100), &[3]);
    check("redirect", 5, 0, offset(0, 100), &[3, 4]);
    check("redirect", 0, 7, offset(0, 100), &[9, 3]);
    check("", 5, 3, offset(0, 100), &[1, 4]);
    check("redirect", 5, 3, offset(0, 100), &[4]);
    check("redirect", 5, 3, after(4, 100), &[]);
    check("nothing", 0, 0, offset(0, 100), &[]);
    let of_url = |page| store.url_events(5, page).unwrap().map(|events| event_ids(&events));
    assert_eq!(of_url(offset(1, 2)), Some(vec![1, 8]));
    assert_eq!(of_url(after(8, 100)), Some(vec![4]));
    assert_eq!(of_url(after(99, 100)), Some(vec![]));
}

fn events_are_made(store: &dyn Store) {
    let ann = store.create_user(new_user("ann")).unwrap().id;
    let url = store.create_url(new_url("abc123", None)).unwrap().id;
    let missing = |reference| Err(StoreError::Missing(reference));
    assert_eq!(store.create_event(new_event(99, Some(99), "seen")), missing(Reference::Url), "the URL comes first");
    assert_eq!(store.create_event(new_event(url, Some(99), "seen")), missing(Reference::User));
    let made = store.create_event(new_event(url, Some(ann), "seen")).unwrap();
    assert_eq!((made.url_id, made.user_id, made.event_type.as_str()), (url, Some(ann), "seen"));
    let bare = NewEvent { details: None, ..new_event(url, None, "bare") };
    let bare = store.create_event(bare).unwrap();
    assert_eq!((bare.user_id, &bare.details), (None, &None));
    assert_eq!(all_events(store, EventFilter::default())[..2], [bare, made]);
}

fn clicks_are_counted(store: &dyn Store) {
    let first = store.create_url(new_url("abc123", None)).unwrap();
    let second = store.create_url(new_url("def456", None)).unwrap();
    let count = |id| store.url_stats(id).unwrap().unwrap().redirect_count;
    assert_eq!(store.url_stats(first.id).unwrap().unwrap().url, first);
    assert_eq!((count(first.id), count(second.id)), (0, 0));
    let unseen = Click { client: None, user_agent: None, ..click(first.id, None, 3_000_000) };
    let clicks = vec![click(first.id, None, 1_500_000), click(second.id, None, 2_000_000), unseen];
    store.record_clicks(Arc::new(clicks.clone()), step(1, 0, 3)).unwrap();
    store.record_clicks(Arc::new(Vec::new()), step(1, 3, 4)).unwrap();
    assert_eq!((count(first.id), count(second.id)), (2, 1));
    store.create_event(new_event(first.id, None, "redirect")).unwrap();
    store.create_event(new_event(first.id, None, "seen")).unwrap();
    assert_eq!((count(first.id), count(second.id)), (3, 1));
    let redirects = all_events(store, EventFilter { event_type: Some("redirect".into()), ..EventFilter::default() });
    let details: Vec<_> = redirects[1..].iter().rev().map(|event| event.details.clone().unwrap()).collect();
    assert_eq!(details, clicks.iter().map(Click::details).collect::<Vec<_>>());
    assert_eq!(redirects[3].timestamp, Timestamp::from_micros(1_500_000));
}

fn clicks_of_a_step_are_stored_once(store: &dyn Store) {
    let url = store.create_url(new_url("abc123", None)).unwrap().id;
    let count = || store.url_stats(url).unwrap().unwrap().redirect_count;
    let offer = |clicks: usize, from: u64, to: u64| {
        store.record_clicks(Arc::new(vec![click(url, None, 1); clicks]), step(1, from, to)).unwrap()
    };
    let position = || store.journal_position(JournalId([1; 16])).unwrap();
    assert_eq!(position(), None);
    assert_eq!(offer(2, 7, 9), JournalStep::UNKNOWN, "no step leads on from where the store has never been");
    assert_eq!((count(), position()), (0, None));
    assert_eq!(offer(2, JournalStep::UNKNOWN, 102), 102);
    assert_eq!(offer(2, JournalStep::UNKNOWN, 102), 102, "offered again because its outcome was unknown");
    assert_eq!((count(), position()), (2, Some(102)));
    assert_eq!(offer(3, 102, 1 << 60), 1 << 60);
    assert_eq!(offer(3, 102, 1 << 60), 1 << 60);
    assert_eq!(offer(1, 102, 103), 1 << 60, "a step from where the journal no longer is");
    assert_eq!((count(), position()), (5, Some(1 << 60)));
    // An offer whose answer did not come may still be under way when the next is made.
    std::thread::scope(|scope| {
        let offers = [(); 8].map(|()| scope.spawn(|| offer(10, 1 << 60, (1 << 60) + 10)));
        offers.into_iter().for_each(|offer| assert_eq!(offer.join().unwrap(), (1 << 60) + 10));
    });
    assert_eq!(count(), 15);
}

fn journals_are_told_apart(store: &dyn Store) {
    let url = store.create_url(new_url("abc123", None)).unwrap().id;
    let offer = |journal| store.record_clicks(Arc::new(vec![click(url, None, 1)]), step(journal, 0, 5)).unwrap();
    assert_eq!((offer(1), offer(2)), (5, 5));
    assert_eq!(store.url_stats(url).unwrap().unwrap().redirect_count, 2);
    // Seed data replaces the rows, but a journal that was stored must not be stored again.
    store.load(SeedData::default(), true).unwrap();
    assert_eq!(store.journal_position(JournalId([1; 16])).unwrap(), Some(5));
}

fn data_sets_are_loaded(store: &dyn Store) {
    let data = history();
    store.load(data.clone(), false).unwrap();
    let check_content = || {
        assert_eq!(store.users(offset(0, 100)).unwrap(), data.users);
        assert_eq!(store.urls(UrlFilter::default(), offset(0, 100)).unwrap(), data.urls);
        let mut events = all_events(store, EventFilter::default());
        events.sort_by_key(|event| event.id);
        assert_eq!(events, data.events);
        assert_eq!(store.url_stats(5).unwrap().unwrap().redirect_count, 2);
        assert_eq!(store.url_stats(11).unwrap().unwrap().redirect_count, 1);
        assert_eq!(store.active_urls().unwrap(), 1);
    };
    check_content();
    assert_eq!(store.load(history(), false), Err(StoreError::NotEmpty));
    check_content();
    for _ in 0..3 {
        store.create_user(new_user(&format!("later{}", store.users(offset(0, 100)).unwrap().len()))).unwrap();
    }
    store.create_url(new_url("later", None)).unwrap();
    store.load(history(), true).unwrap();
    check_content();
    assert_eq!(store.create_user(new_user("next")).unwrap().id, 8, "ids follow the highest");
    assert_eq!(store.create_url(new_url("next", None)).unwrap().id, 12);
    assert_eq!(store.create_event(new_event(12, None, "seen")).unwrap().id, 11);
    // A data set that cannot be loaded leaves what was there.
    let mut broken = history();
    broken.urls[1].user_id = Some(99);
    let before = store.users(offset(0, 100)).unwrap();
    assert_eq!(store.load(broken, true), Err(StoreError::Missing(Reference::User)));
    assert_eq!(store.users(offset(0, 100)).unwrap(), before);
    store.load(SeedData::default(), true).unwrap();
    assert_eq!(store.users(offset(0, 100)).unwrap(), []);
    store.load(SeedData::default(), false).unwrap();
}

fn links_have_versions(store: &dyn Store) {
    let ann = store.create_user(new_user("ann")).unwrap().id;
    let id = store.create_url(new_url("abc123", Some(ann))).unwrap().id;
    let target = |user_id, version| Target { url_id: id, user_id, version, original_url: "http://new".into() };
    assert_eq!(store.resolve("abc123").unwrap().unwrap().version, 1);
    let patch = UrlPatch { original_url: Some("http://new".into()), ..UrlPatch::default() };
    let changed = |target: Target| LinkState { url_id: id, version: target.version, target: Some(target) };
    let update = |patch| store.update_url(id, patch).unwrap().unwrap().link_state();
    assert_eq!(update(patch), changed(target(Some(ann), 2)));
    assert_eq!(update(UrlPatch::default()), changed(target(Some(ann), 2)), "nothing has changed");
    store.delete_user(ann).unwrap();
    assert_eq!(store.resolve("abc123").unwrap(), Some(target(None, 3)));
    let titled = UrlPatch { title: Some(None), ..UrlPatch::default() };
    assert_eq!(update(titled), changed(target(None, 4)));
    assert_eq!(store.resolve("abc123").unwrap(), Some(target(None, 4)), "as the change said");
    let deleted = store.delete_url(id).unwrap().unwrap().link_state();
    assert_eq!(deleted, LinkState { url_id: id, version: 5, target: None });
    let switched_on = UrlPatch { is_active: Some(true), ..UrlPatch::default() };
    assert_eq!(update(switched_on), changed(target(None, 6)));
}

/// Reads on to the end of the list; gives the entries, and where the end was.
fn read_on(store: &dyn Store, mut after: Option<ChangeCursor>) -> (Vec<(String, i64)>, Option<ChangeCursor>) {
    let mut found = Vec::new();
    loop {
        let part = store.link_changes(after).unwrap();
        assert!(part.changes.len() <= LINK_CHANGES_PAGE as usize);
        found.extend(part.changes.into_iter().map(|change| (change.short_code, change.version)));
        after = Some(part.next);
        if part.is_end {
            return (found, after);
        }
    }
}

fn changes_of_links_are_listed(store: &dyn Store) {
    let entry = |code: &str, version| (code.to_owned(), version);
    let (found, start) = read_on(store, None);
    assert_eq!(found, []);
    let id = store.create_url(new_url("abc123", None)).unwrap().id;
    assert_eq!(read_on(store, start).0, [], "a new link is no change");
    store.update_url(id, UrlPatch { is_active: Some(false), ..UrlPatch::default() }).unwrap();
    let (found, after) = read_on(store, start);
    assert_eq!(found, [entry("abc123", 2)]);
    store.update_url(id, UrlPatch { is_active: Some(true), ..UrlPatch::default() }).unwrap();
    store.delete_url(id).unwrap();
    // What was read already may come again, before what is new.
    let (found, _) = read_on(store, after);
    assert!(found.ends_with(&[entry("abc123", 3), entry("abc123", 4)]), "{found:?}");
    assert_eq!(read_on(store, None).0.len(), 3, "the beginning is long ago");
    store.forget_link_changes().unwrap();
    assert_eq!(read_on(store, None).0.len(), 3, "nothing is so old");

    // More than fits into a part, from one transaction.
    let count = i64::from(LINK_CHANGES_PAGE) * 2 + 7;
    let at = Timestamp::from_micros(0);
    let user = User { id: 1, username: "ann".into(), email: "ann@example.com".into(), created_at: at };
    let urls = (1..=count).map(|n| ShortUrl {
        id: n,
        user_id: Some(1),
        short_code: format!("c{n}"),
        original_url: "http://ab".into(),
        title: None,
        is_active: true,
        created_at: at,
        updated_at: at,
    });
    let data = SeedData { users: vec![user], urls: urls.collect(), events: Vec::new() };
    let (_, after) = read_on(store, None);
    store.load(data, true).unwrap();
    let (found, after) = read_on(store, after);
    assert!(found.ends_with(&[entry("abc123", 5)]), "what a data set takes the place of is gone: {found:?}");
    store.delete_user(1).unwrap();
    let (mut found, _) = read_on(store, after);
    found.retain(|(code, _)| code != "abc123");
    found.sort();
    let mut expect: Vec<_> = (1..=count).map(|n| entry(&format!("c{n}"), 2)).collect();
    expect.sort();
    assert_eq!(found, expect);
}

fn active_links_are_walked_downwards(store: &dyn Store) {
    let ids: Vec<Id> = (0..5).map(|n| store.create_url(new_url(&format!("c{n}"), None)).unwrap().id).collect();
    store.delete_url(ids[3]).unwrap();
    let codes = |before, limit| {
        let page = store.links_below(before, limit).unwrap();
        page.into_iter().map(|(code, target)| (code, target.url_id)).collect::<Vec<_>>()
    };
    let expect = |ns: &[usize]| ns.iter().map(|&n| (format!("c{n}"), ids[n])).collect::<Vec<_>>();
    assert_eq!(codes(Id::MAX, 2), expect(&[4, 2]));
    assert_eq!(codes(ids[2], 10), expect(&[1, 0]));
    assert_eq!(codes(ids[0], 10), []);
}
