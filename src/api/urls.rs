//! `/urls`, `/urls/<id>`, `/urls/<id>/stats`.

use super::json::Field;
use super::query::Query;
use super::reply::{self, Error};
use super::{Api, Handled, Object, body_object, given_user_id, json};
use crate::error::{Constraint, StoreError};
use crate::figures::count;
use crate::http::{Request, Response};
use crate::limits::SHORT_CODE_TRIES;
use crate::model::{Id, NewUrl, ShortUrl, UrlFilter, UrlPatch, code, validate};

impl Api {
    pub(super) fn list_urls(&self, request: &Request<'_>, response: &mut Response<'_>) -> Handled {
        let query = Query::new(request.head.query);
        let filter = UrlFilter {
            user_id: query.integer("user_id", "user_id must be an integer")?,
            is_active: query.boolean("is_active"),
        };
        let urls = self.store.urls(filter, query.page())?;
        reply::ok(response, |out| json::write_array(out, &urls, json::write_url));
        Ok(())
    }

    pub(super) fn show_url(&self, id: Id, response: &mut Response<'_>) -> Handled {
        let url = self.store.url(id)?.ok_or(reply::URL_NOT_FOUND)?;
        reply::ok(response, |out| json::write_url(out, &url));
        Ok(())
    }

    pub(super) fn show_stats(&self, id: Id, response: &mut Response<'_>) -> Handled {
        self.ship_clicks()?;
        let stats = self.store.url_stats(id)?.ok_or(reply::URL_NOT_FOUND)?;
        reply::ok(response, |out| json::write_stats(out, &stats));
        Ok(())
    }

    pub(super) fn create_url(&self, request: &Request<'_>, response: &mut Response<'_>) -> Handled {
        let object = body_object(request)?;
        let given = given_url(&object).and_then(Field::text);
        let original_url = validate::original_url(given).map_err(Error::BadRequest)?;
        let user_id = given_user_id(&object)?;
        let title = validate::title(object.text("title")).map_err(Error::BadRequest)?;
        let url = self.insert_url(NewUrl { user_id, short_code: code::generate(), original_url, title })?;
        self.links.created(&url.short_code);
        count(&self.metrics.urls_created);
        reply::created(response, |out| json::write_url(out, &url));
        Ok(())
    }

    /// Tries codes until one is free.
    fn insert_url(&self, mut new: NewUrl) -> Result<ShortUrl, Error> {
        for _ in 1..SHORT_CODE_TRIES {
            match self.store.create_url(new.clone()) {
                Err(StoreError::Conflict(Constraint::ShortCode)) => new.short_code = code::generate(),
                outcome => return outcome.map_err(Error::from),
            }
        }
        self.store.create_url(new).map_err(Error::from)
    }

    pub(super) fn update_url(&self, id: Id, request: &Request<'_>, response: &mut Response<'_>) -> Handled {
        let patch = url_patch(&body_object(request)?)?;
        let changed = self.store.update_url(id, patch)?.ok_or(reply::URL_NOT_FOUND)?;
        self.links.changed(&changed);
        reply::ok(response, |out| json::write_url(out, &changed.url));
        Ok(())
    }

    pub(super) fn delete_url(&self, id: Id, response: &mut Response<'_>) -> Handled {
        let changed = self.store.delete_url(id)?.ok_or(reply::URL_NOT_FOUND)?;
        self.links.changed(&changed);
        reply::no_content(response);
        Ok(())
    }
}

/// `original_url` or `url`: the first that is there.
fn given_url<'o, 'b>(object: &'o Object<'b>) -> Option<&'o Field<'b>> {
    object.get("original_url").or_else(|| object.get("url"))
}

/// The fields given, each valid.
fn url_patch(object: &Object<'_>) -> Result<UrlPatch, Error> {
    let original_url =
        given_url(object).map(|field| validate::original_url(field.text())).transpose().map_err(Error::BadRequest)?;
    let title =
        object.get("title").map(|field| validate::title(field.text())).transpose().map_err(Error::BadRequest)?;
    let is_active = match object.get("is_active") {
        None => None,
        Some(Field::Boolean(is_active)) => Some(*is_active),
        Some(_) => return Err(Error::BadRequest("is_active must be a boolean")),
    };
    Ok(UrlPatch { original_url, title, is_active })
}
