//! `/users`, `/users/<id>`, `/users/bulk`.

use super::query::Query;
use super::reply::{self, Error};
use super::{Api, Handled, body_object, json, upload};
use crate::http::{Request, Response};
use crate::model::{Id, NewUser, UserPatch, validate};
use crate::runtime::offload::{NotDone, offload};

impl Api {
    pub(super) fn list_users(&self, request: &Request<'_>, response: &mut Response<'_>) -> Handled {
        let users = self.store.users(Query::new(request.head.query).page())?;
        reply::ok(response, |out| json::write_array(out, &users, json::write_user));
        Ok(())
    }

    pub(super) fn show_user(&self, id: Id, response: &mut Response<'_>) -> Handled {
        let user = self.store.user(id)?.ok_or(reply::USER_NOT_FOUND)?;
        reply::ok(response, |out| json::write_user(out, &user));
        Ok(())
    }

    pub(super) fn create_user(&self, request: &Request<'_>, response: &mut Response<'_>) -> Handled {
        let object = body_object(request)?;
        let username = validate::new_username(object.text("username")).map_err(Error::BadRequest)?;
        let email = validate::new_email(object.text("email")).map_err(Error::BadRequest)?;
        let user = self.store.create_user(NewUser { username, email, created_at: None })?;
        reply::created(response, |out| json::write_user(out, &user));
        Ok(())
    }

    pub(super) fn update_user(&self, id: Id, request: &Request<'_>, response: &mut Response<'_>) -> Handled {
        let object = body_object(request)?;
        let changed = |name: &str, rule: fn(Option<&str>) -> Result<String, &'static str>| {
            object.get(name).map(|field| rule(field.text())).transpose().map_err(Error::BadRequest)
        };
        let patch = UserPatch {
            username: changed("username", validate::changed_username)?,
            email: changed("email", validate::changed_email)?,
        };
        let user = self.store.update_user(id, patch).map_err(|error| match Error::from(error) {
            // The contract has one text for both here.
            Error::Conflict(_) => Error::Conflict("Username or email already exists"),
            other => other,
        })?;
        let user = user.ok_or(reply::USER_NOT_FOUND)?;
        reply::ok(response, |out| json::write_user(out, &user));
        Ok(())
    }

    pub(super) fn delete_user(&self, id: Id, response: &mut Response<'_>) -> Handled {
        if !self.store.delete_user(id)? {
            return Err(reply::USER_NOT_FOUND);
        }
        // Cached links name their owner, who is gone.
        self.links.changed_many();
        reply::no_content(response);
        Ok(())
    }

    pub(super) fn import_users(&self, request: &Request<'_>, response: &mut Response<'_>) -> Handled {
        let boundary = upload::boundary(request.head.content_type)?;
        let body = request.body.to_vec();
        // Ten megabytes of CSV take tens of milliseconds: not on the worker.
        let rows = offload(move || upload::users(&boundary, body)).map_err(|not_done| match not_done {
            NotDone::Busy => Error::Unavailable("too many uploads wait".to_owned()),
            NotDone::Panicked => reply::internal("reading the upload panicked".to_owned()),
        })??;
        let imported = self.store.import_users(rows)?;
        reply::created(response, |out| {
            let imported = i64::try_from(imported).unwrap_or(i64::MAX);
            out.extend_from_slice(b"{\"imported\":");
            json::write_integer(out, imported);
            out.extend_from_slice(b",\"count\":");
            json::write_integer(out, imported);
            out.push(b'}');
        });
        Ok(())
    }
}
