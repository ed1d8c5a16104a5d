//! Lists, page by page.

use reqwest::Method;
use serde::de::DeserializeOwned;

use cistern_model::Page;

use crate::{Client, ClientError};

/// As many as the API gives at once.
pub(crate) const PAGE: usize = 1000;

impl Client {
    /// One page of a list: of what is asked for, where that is said, so many, from where the page before it ended.
    pub(crate) async fn page<T: DeserializeOwned>(
        &self,
        path: &[&str],
        asked: &[(&str, Option<&str>)],
        limit: usize,
        from: Option<&str>,
    ) -> Result<Page<T>, ClientError> {
        let limit = limit.to_string();
        let all = asked
            .iter()
            .copied()
            .chain([("limit", Some(limit.as_str())), ("continue", from)]);
        let pairs: Vec<(&str, &str)> = all.filter_map(|(key, value)| Some((key, value?))).collect();
        let (_, body) = self.send(self.request(Method::GET, path).query(&pairs)).await?;
        self.parse(&body)
    }

    /// Takes a page's items, and says from where to go on; none at the end. The same mark again would never end.
    pub(crate) fn follow<T>(
        &self,
        page: Page<T>,
        from: Option<&String>,
        all: &mut Vec<T>,
    ) -> Result<Option<String>, ClientError> {
        all.extend(page.items);
        if page.next.is_some() && page.next.as_ref() == from {
            return Err(ClientError::Answer {
                endpoint: self.endpoint().to_owned(),
                why: "a list continues where it began".to_owned(),
            });
        }
        Ok(page.next)
    }
}
