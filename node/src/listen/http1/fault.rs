//! What can be wrong with a message on the wire, in the words that operators and clients get. Whether something is wrong
//! is decided in the files beside it.

/// Why a message is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// CR without LF, or LF without CR.
    LineEnd,
    /// NUL and its like.
    ControlByte,
    /// A line that begins with white space.
    FoldedLine,
    /// Not three words.
    RequestLine,
    /// Not an upper-case word.
    Method,
    /// A character that a request target does not have, or a form that is none.
    Target,
    /// Neither HTTP/1.1 nor HTTP/1.0.
    Version,
    /// Not a name with a colon right behind it.
    FieldName,
    /// Not one number, once.
    ContentLength,
    /// Not `chunked`, once, in HTTP/1.1.
    TransferEncoding,
    /// Both of them.
    TwoLengths,
    /// Too many fields.
    TooManyFields,
    /// Too many bytes of them.
    HeadTooLong,
    /// A target longer than any parser takes.
    TargetTooLong,
    /// Not a hexadecimal number, or one too large.
    ChunkSize,
    /// A chunk extension with something in it that has no place there, or too much of them.
    ChunkExtension,
    /// A chunk that does not end where it says.
    ChunkEnd,
    /// A trailer field that is none, or too much of them.
    Trailer,
}

impl Fault {
    #[cfg(test)]
    pub(super) const ALL: [Self; 18] = [
        Self::LineEnd,
        Self::ControlByte,
        Self::FoldedLine,
        Self::RequestLine,
        Self::Method,
        Self::Target,
        Self::Version,
        Self::FieldName,
        Self::ContentLength,
        Self::TransferEncoding,
        Self::TwoLengths,
        Self::TooManyFields,
        Self::HeadTooLong,
        Self::TargetTooLong,
        Self::ChunkSize,
        Self::ChunkExtension,
        Self::ChunkEnd,
        Self::Trailer,
    ];

    /// Whether there is too much of something, rather than something wrong.
    pub(crate) const fn is_too_large(self) -> bool {
        matches!(self, Self::TooManyFields | Self::HeadTooLong | Self::TargetTooLong)
    }

    /// In one word, for the access log and the metrics.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::LineEnd => "line-end",
            Self::ControlByte => "control-byte",
            Self::FoldedLine => "folded-line",
            Self::RequestLine => "request-line",
            Self::Method => "method",
            Self::Target => "target",
            Self::Version => "http-version",
            Self::FieldName => "field-name",
            Self::ContentLength => "content-length",
            Self::TransferEncoding => "transfer-encoding",
            Self::TwoLengths => "two-lengths",
            Self::TooManyFields => "too-many-fields",
            Self::HeadTooLong => "fields-too-long",
            Self::TargetTooLong => "target-too-long",
            Self::ChunkSize => "chunk-size",
            Self::ChunkExtension => "chunk-extension",
            Self::ChunkEnd => "chunk-end",
            Self::Trailer => "trailer",
        }
    }

    /// For the client.
    pub(crate) const fn detail(self) -> &'static str {
        match self {
            Self::LineEnd => "a line ends with something else than CR LF",
            Self::ControlByte => "the head has a control character",
            Self::FoldedLine => "a header line begins with white space",
            Self::RequestLine => "the request line is not a method, a target and a version with one space between them",
            Self::Method => "the method is not an upper-case word of 32 characters at most",
            Self::Target => "the request target has a form or a character that it must not have",
            Self::Version => "the version is neither HTTP/1.1 nor HTTP/1.0",
            Self::FieldName => "a header line does not begin with a name of 256 characters at most and a colon",
            Self::ContentLength => "Content-Length is not one number, given once",
            Self::TransferEncoding => "the only transfer encoding that is understood is chunked, once, in HTTP/1.1",
            Self::TwoLengths => "both Transfer-Encoding and Content-Length are given",
            Self::TooManyFields => "there are too many header fields",
            Self::HeadTooLong => "the header fields have too many bytes",
            Self::TargetTooLong => "the request target has too many bytes",
            Self::ChunkSize => "the size of a chunk is not a hexadecimal number of 15 digits at most",
            Self::ChunkExtension => "the extension of a chunk is malformed, or there is too much of it",
            Self::ChunkEnd => "a chunk does not end where its size says",
            Self::Trailer => "a trailer field is malformed, or there are too many",
        }
    }
}
