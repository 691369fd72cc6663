//! The selection of sessions in queries and commands.

use std::collections::BTreeSet;

use super::fields::Fields;
use super::query::{Query, wrong};
use super::response::RequestRefusal;
use super::session_view::Row;
use crate::config::{Cidr, CidrError};
use crate::session::ConnId;

/// The form of `client`, for error messages.
const NETWORK: &str = "an address or a network such as 10.0.0.0/8 or 2001:db8::/32";
/// The form of `misses_gte`, for error messages.
const COUNT: &str = "a whole number";
/// The form of `ids`, for error messages.
const IDS: &str = "a list of ids, each 16 hexadecimal digits";

/// A conjunction of conditions; without conditions it matches every session.
#[derive(Debug, Default)]
pub(super) struct Filter {
    route: Option<String>,
    client: Option<Cidr>,
    misses_gte: Option<u32>,
    ids: Option<BTreeSet<ConnId>>,
}

impl Filter {
    /// Reads the conditions from the parameters of a query. Fails when a value is malformed.
    pub(super) fn of_query(query: &Query<'_>) -> Result<Self, RequestRefusal> {
        let client = query.text("client").map(|text| network(text).map_err(|why| wrong("client", text, why)));
        Ok(Self {
            route: query.text("route").map(str::to_owned),
            client: client.transpose()?,
            misses_gte: query.parse("misses_gte", COUNT)?,
            ids: None,
        })
    }

    /// Reads the conditions from the object `filter` of a body. Fails when a field is unknown or malformed.
    pub(super) fn of_fields(fields: &mut Fields) -> Result<Self, RequestRefusal> {
        let known = ["route", "client", "misses_gte", "ids"];
        let Some(mut fields) = fields.object("filter", &known)? else { return Ok(Self::default()) };
        let client = fields.text("client")?;
        let client = client.map(|text| network(&text).map_err(|why| wrong("client", &text, why)));
        let ids: Option<Vec<ConnId>> = fields.list("ids", IDS)?;
        Ok(Self {
            route: fields.text("route")?,
            client: client.transpose()?,
            misses_gte: fields.number("misses_gte", COUNT)?,
            ids: ids.map(BTreeSet::from_iter),
        })
    }

    /// Returns whether there is no condition.
    pub(super) fn is_empty(&self) -> bool {
        let Self { route, client, misses_gte, ids } = self;
        route.is_none() && client.is_none() && misses_gte.is_none() && ids.is_none()
    }

    /// Returns whether `row` meets every condition.
    pub(super) fn matches(&self, row: &Row) -> bool {
        let Self { route, client, misses_gte, ids } = self;
        ids.as_ref().is_none_or(|ids| ids.contains(&row.id()))
            && misses_gte.is_none_or(|least| row.misses() >= u64::from(least))
            && client.is_none_or(|network| network.contains(row.client()))
            && route.as_ref().is_none_or(|route| row.route() == *route)
    }
}

fn network(text: &str) -> Result<Cidr, String> {
    text.parse().map_err(|error| match error {
        CidrError::Form => NETWORK.to_owned(),
        CidrError::Prefix(most) => format!("a network whose prefix has 0 to {most} bits"),
        CidrError::Within(network) => format!("a network; this is an address in {network}"),
    })
}
