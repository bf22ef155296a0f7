//! `/events`, `/urls/<id>/events`.

use super::json::{Field, Object};
use super::query::Query;
use super::reply::{self, Error};
use super::{Api, GivenId, Handled, body_object, given_id, given_user_id, json};
use crate::http::{Request, Response};
use crate::model::{EventFilter, Id, NewEvent, validate};

impl Api {
    pub(super) fn list_events(&self, request: &Request<'_>, response: &mut Response<'_>) -> Handled {
        let query = Query::new(request.head.query);
        let filter = EventFilter {
            event_type: query.get("event_type").or_else(|| query.get("type")).map(Into::into),
            url_id: query.integer("url_id", "url_id must be an integer")?,
            user_id: query.integer("user_id", "user_id must be an integer")?,
        };
        self.ship_clicks()?;
        let events = self.store.events(filter, query.page())?;
        reply::ok(response, |out| json::write_array(out, &events, json::write_event));
        Ok(())
    }

    pub(super) fn list_url_events(&self, id: Id, request: &Request<'_>, response: &mut Response<'_>) -> Handled {
        let page = Query::new(request.head.query).page();
        self.ship_clicks()?;
        let events = self.store.url_events(id, page)?.ok_or(reply::URL_NOT_FOUND)?;
        reply::ok(response, |out| json::write_array(out, &events, json::write_event));
        Ok(())
    }

    pub(super) fn create_event(&self, request: &Request<'_>, response: &mut Response<'_>) -> Handled {
        let object = body_object(request)?;
        let url_id = match given_id(object.get("url_id")) {
            GivenId::Id(id) => id,
            GivenId::Absent => return Err(Error::BadRequest("url_id is required")),
            GivenId::NoInteger => return Err(Error::BadRequest("url_id must be an integer")),
            GivenId::NotPositive => return Err(Error::BadRequest("url_id must be a positive integer")),
        };
        let new = match new_event(url_id, &object) {
            Ok(new) => new,
            // The contract looks for the URL before it looks at the rest; one round trip serves the good case.
            Err(_) if self.store.url(url_id)?.is_none() => return Err(reply::URL_NOT_FOUND),
            Err(error) => return Err(error),
        };
        let event = self.store.create_event(new)?;
        reply::created(response, |out| json::write_event(out, &event));
        Ok(())
    }
}

/// What a body says beside the URL's id.
fn new_event(url_id: Id, object: &Object<'_>) -> Result<NewEvent, Error> {
    let event_type = validate::event_type(object.text("event_type")).map_err(Error::BadRequest)?;
    let user_id = given_user_id(object)?;
    let details = match object.get("details") {
        None | Some(Field::Null) => None,
        Some(Field::Object(text)) => Some(text.clone().into_owned()),
        Some(_) => return Err(Error::BadRequest("details must be a JSON object")),
    };
    Ok(NewEvent { url_id, user_id, event_type, details })
}
