//! Refusals: what a client is told when the gateway answers by itself. `application/problem+json` (RFC 9457) with a
//! stable `type`; never internals, and never whether a key exists.

use super::forward::Body;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use std::borrow::Cow;

/// A situation in which the gateway answers by itself. The names are public and stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The request breaks a rule of HTTP, or of paths.
    BadRequest,
    /// No credential that is accepted.
    Unauthenticated,
    /// No policy permits it, or one forbids it.
    Forbidden,
    /// No route takes it.
    NoRoute,
    /// The path is there, but not for this method.
    MethodNotAllowed,
    /// The body is over its limit.
    RequestTooLarge,
    /// The header fields are over their limits.
    HeadersTooLarge,
    /// The client expects something that the gateway does not do.
    ExpectationFailed,
    /// The TLS connection was made for another host.
    Misdirected,
    /// A document that the route needs cannot be read by this release.
    RouteUnavailable,
    /// The node holds no authority: it has lost the cluster.
    Isolated,
    /// A limit of the route is used up.
    RateLimited,
    /// The cluster, not the caller, is at fault: the node holds no allowance of a limit, and none came in time.
    LimitUnavailable,
    /// The node, or the upstream's connections from it, are at their limit.
    Overloaded,
    /// The upstream could not be reached (503: nothing was sent), or failed while it answered (502).
    UpstreamUnavailable { sent: bool },
    /// The upstream did not answer in time.
    UpstreamTimeout,
}

/// A request that is not forwarded, or whose forwarding failed.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) problem: Problem,
    /// What the client is told beside the name.
    detail: Cow<'static, str>,
    /// What may be asked here, for 405.
    allow: Option<HeaderValue>,
    /// Seconds after which it may be asked again.
    retry_after: u64,
    /// Why, in one word, for the access log and the metrics alone.
    pub(crate) reason: &'static str,
}

impl Problem {
    /// The stable name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad-request",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NoRoute => "no-route",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::RequestTooLarge => "request-too-large",
            Self::HeadersTooLarge => "headers-too-large",
            Self::ExpectationFailed => "expectation-failed",
            Self::Misdirected => "misdirected",
            Self::RouteUnavailable => "route-unavailable",
            Self::Isolated => "isolated",
            Self::RateLimited => "rate-limited",
            Self::LimitUnavailable => "limit-unavailable",
            Self::Overloaded => "overloaded",
            Self::UpstreamUnavailable { .. } => "upstream-unavailable",
            Self::UpstreamTimeout => "upstream-timeout",
        }
    }

    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::ExpectationFailed => StatusCode::EXPECTATION_FAILED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::RouteUnavailable
            | Self::Isolated
            | Self::LimitUnavailable
            | Self::Overloaded
            | Self::UpstreamUnavailable { sent: false } => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamUnavailable { sent: true } => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// A short text for people.
    const fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "The request is malformed",
            Self::Unauthenticated => "A valid credential is needed",
            Self::Forbidden => "This is not permitted",
            Self::NoRoute => "There is nothing here",
            Self::MethodNotAllowed => "The method is not allowed here",
            Self::RequestTooLarge => "The request body is too large",
            Self::HeadersTooLarge => "The header fields are too large",
            Self::ExpectationFailed => "What the request expects is not done here",
            Self::Misdirected => "This connection is for another host",
            Self::RouteUnavailable => "The route is not available on this node",
            Self::Isolated => "This node has lost its cluster",
            Self::RateLimited => "A limit is used up",
            Self::LimitUnavailable => "The cluster does not say in time whether a limit is used up",
            Self::Overloaded => "The gateway is overloaded",
            Self::UpstreamUnavailable { .. } => "The upstream is not available",
            Self::UpstreamTimeout => "The upstream did not answer in time",
        }
    }
}

impl Refusal {
    /// `reason` is for operators; the client sees the problem's name and title.
    pub(crate) const fn new(problem: Problem, reason: &'static str) -> Self {
        // For those that say so at all: another node may answer at once, this one as soon as a majority does.
        Self { problem, detail: Cow::Borrowed(""), allow: None, retry_after: 1, reason }
    }

    /// With something that the client may know.
    pub(crate) fn telling(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = detail.into();
        self
    }

    /// With the time after which it may be asked again; a second at the least.
    pub(crate) fn retrying_after(mut self, seconds: u64) -> Self {
        self.retry_after = seconds.max(1);
        self
    }

    pub(crate) fn allowing<'m>(mut self, methods: impl Iterator<Item = &'m http::Method>) -> Self {
        let list: Vec<&str> = methods.map(http::Method::as_str).collect();
        self.allow = HeaderValue::from_str(&list.join(", ")).ok();
        self
    }

    /// What the client gets, but for the headers that every response carries.
    pub(crate) fn response(self, request_id: &str) -> Response<Body> {
        let problem = self.problem;
        let mut text = serde_json::Map::new();
        text.insert("type".to_owned(), problem.name().into());
        text.insert("title".to_owned(), problem.title().into());
        text.insert("status".to_owned(), problem.status().as_u16().into());
        if !self.detail.is_empty() {
            text.insert("detail".to_owned(), self.detail.into());
        }
        text.insert("request_id".to_owned(), request_id.into());
        let bytes = Bytes::from(serde_json::Value::Object(text).to_string());
        let mut response = Response::new(Body::text(bytes));
        *response.status_mut() = problem.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match problem {
            Problem::Unauthenticated => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Problem::MethodNotAllowed => {
                headers.insert(header::ALLOW, self.allow.unwrap_or(HeaderValue::from_static("")));
            }
            Problem::Isolated | Problem::RateLimited | Problem::LimitUnavailable | Problem::Overloaded => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(self.retry_after));
            }
            _ => {}
        }
        response
    }
}
