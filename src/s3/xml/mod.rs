//! XML of S3: a strict, bounded reader for request bodies, and what writes text into responses.
//!
//! [`requests`] turns bodies into values by means of [`Elements`]; [`responses`] writes documents with
//! the functions of [`text`]. S3's documents need elements and text only, so that is all that is read.
//!
//! Invariant of the reader: time and memory grow linearly with a body of at most
//! [`XML_BODY_BYTES_MAX`] bytes. It has no DOCTYPE, no entities but XML's five, no processing
//! instructions, at most [`ELEMENTS_MAX`] elements of which [`XML_DEPTH_MAX`] are open, and it never recurses.
//! Of a text it keeps no more than is asked for. It stops after [`EVENTS_A_TURN`] events, so that a core that reads a
//! long body does other work in between: see [`Elements::takes_a_break`]. What cannot be interrupted is a look at all
//! bytes: that they are UTF-8, and within a text that XML has them. For 8 MiB it takes some 3 ms
//! of ASCII, and 20 ms where no character is.

pub mod requests;
pub mod responses;
pub mod text;

pub use text::escape_into;

use std::borrow::Cow;

use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

use crate::limits::{PARTS_MAX, XML_BODY_BYTES_MAX, XML_DEPTH_MAX};
use crate::s3::error::{ErrorCode, S3Error, S3Result};

/// Elements that a document may have: each part of CompleteMultipartUpload with its number, its tag, every
/// checksum, and some that are not S3's.
pub const ELEMENTS_MAX: usize = 16 * PARTS_MAX as usize;

/// What the reader finds (a tag, a run of text, a reference, a comment) before it takes a break: 4,096 take about a
/// third of a millisecond.
const EVENTS_A_TURN: usize = 4096;
/// What it may find between two breaks: an entry whose texts are all of references has some 12,000.
const EVENTS_WITHOUT_BREAK_MAX: usize = 8 * EVENTS_A_TURN;
/// Bytes of an element's name, and of an attribute's value.
const NAME_BYTES_MAX: usize = 1024;

/// Attributes that one element may have. S3's bodies have `xmlns` and `xsi:type`. Checking names for
/// duplicates is quadratic, so the bound is part of the linear time.
const ATTRIBUTES_MAX: usize = 8;

/// A document that is read element by element, from the outside in.
///
/// ```text
/// let mut elements = Elements::open(body, "Delete")?;
/// while let Some(name) = elements.child()? {
///     match name {
///         "Quiet" => quiet = elements.text(10)? == "true",
///         _ => elements.skip()?,
///     }
/// }
/// elements.finish()?;
/// ```
///
/// After [`Elements::child`] has named a child, exactly one of [`Elements::text`], [`Elements::skip`]
/// or a loop over `child` until `None` consumes it. Names are local: prefixes and namespaces are ignored.
pub struct Elements<'a> {
    reader: Reader<&'a [u8]>,
    /// Elements that are open.
    depth: usize,
    /// Elements that were opened.
    count: usize,
    /// Events since the last break.
    events: usize,
    /// The local name of the element that was opened last; kept to save an allocation an element.
    name: String,
}

impl<'a> Elements<'a> {
    /// Opens the document and its root, which must be named `root`.
    ///
    /// Errors: `MaxMessageLengthExceeded` for a body that is too long, else `MalformedXML`.
    pub fn open(body: &'a [u8], root: &str) -> S3Result<Elements<'a>> {
        if body.len() > XML_BODY_BYTES_MAX {
            return Err(S3Error::new(ErrorCode::MaxMessageLengthExceeded)
                .detail("MaxMessageLengthBytes", XML_BODY_BYTES_MAX.to_string()));
        }
        let document = std::str::from_utf8(body).map_err(|_| malformed())?;
        let document = document.strip_prefix('\u{feff}').unwrap_or(document);
        let mut reader = Reader::from_str(document);
        let config = reader.config_mut();
        config.enable_all_checks(true);
        config.expand_empty_elements = true;
        config.trim_markup_names_in_closing_tags = true;
        let mut elements = Elements {
            reader,
            depth: 0,
            count: 0,
            events: 0,
            name: String::new(),
        };
        elements.prolog(root)?;
        Ok(elements)
    }

    /// The local name of the next child, or `None` at the end of the element that is open.
    pub fn child(&mut self) -> S3Result<Option<&str>> {
        loop {
            match self.event()? {
                Event::Start(start) => {
                    self.enter(&start)?;
                    break;
                }
                Event::End(_) => {
                    self.depth -= 1;
                    return Ok(None);
                }
                Event::Text(text) if is_space(&text) => {}
                Event::Comment(_) => {}
                _ => return Err(malformed()),
            }
        }
        Ok(Some(&self.name))
    }

    /// Whether it is time for others to have their turn; from then on the next turn counts. To be asked between entries:
    /// more than `EVENTS_WITHOUT_BREAK_MAX` events without a break are an error.
    pub fn takes_a_break(&mut self) -> bool {
        let is_time = self.events >= EVENTS_A_TURN;
        if is_time {
            self.events = 0;
        }
        is_time
    }

    /// The text of the child that was just named, to its end. A child of its own is an error. Of a text longer than
    /// `bytes_max` it is the beginning, which is longer by one to four bytes.
    ///
    /// Line ends are normalised as XML 1.0 section 2.11 says; `&#xD;` stays a carriage return.
    pub fn text(&mut self, bytes_max: usize) -> S3Result<Cow<'a, str>> {
        let mut text: Cow<'a, str> = Cow::Borrowed("");
        loop {
            match self.event()? {
                Event::Text(part) => {
                    if part.as_bytes().contains(&b'>') && part.contains("]]>") {
                        return Err(malformed());
                    }
                    push(&mut text, part.into_inner(), bytes_max)?;
                }
                Event::CData(part) => push(&mut text, part.into_inner(), bytes_max)?,
                Event::GeneralRef(reference) => {
                    let character = match reference.resolve_char_ref() {
                        Ok(Some(character)) => character,
                        Ok(None) => predefined(&reference)?,
                        Err(_) => return Err(malformed()),
                    };
                    if text.len() <= bytes_max {
                        text.to_mut().push(character);
                    }
                }
                Event::End(_) => {
                    self.depth -= 1;
                    return Ok(text);
                }
                Event::Comment(_) => {}
                _ => return Err(malformed()),
            }
        }
    }

    /// Passes over the child that was just named and all that is in it.
    pub fn skip(&mut self) -> S3Result<()> {
        let outside = self.depth - 1;
        while self.depth > outside {
            match self.event()? {
                Event::Start(start) => self.enter(&start)?,
                Event::End(_) => self.depth -= 1,
                Event::Text(_) | Event::CData(_) | Event::Comment(_) => {}
                Event::GeneralRef(reference) => match reference.resolve_char_ref() {
                    Ok(Some(_)) => {}
                    Ok(None) => {
                        predefined(&reference)?;
                    }
                    Err(_) => return Err(malformed()),
                },
                _ => return Err(malformed()),
            }
        }
        Ok(())
    }

    /// Sees that nothing follows the root, after [`Elements::child`] has returned its `None`.
    pub fn finish(mut self) -> S3Result<()> {
        loop {
            match self.event()? {
                Event::Eof => return Ok(()),
                Event::Text(text) if is_space(&text) => {}
                Event::Comment(_) => {}
                _ => return Err(malformed()),
            }
        }
    }

    /// Reads up to and into the root. A declaration may only come first, and says UTF-8 if anything.
    fn prolog(&mut self, root: &str) -> S3Result<()> {
        let mut first = true;
        loop {
            match self.event()? {
                Event::Decl(declaration) if first => {
                    let encoding = declaration.encoding();
                    match encoding {
                        None => {}
                        Some(Ok(name)) if name.eq_ignore_ascii_case("utf-8") => {}
                        Some(_) => return Err(malformed()),
                    }
                }
                Event::Start(start) => {
                    self.enter(&start)?;
                    return if self.name == root {
                        Ok(())
                    } else {
                        Err(malformed())
                    };
                }
                Event::Text(text) if is_space(&text) => {}
                Event::Comment(_) => {}
                _ => return Err(malformed()),
            }
            first = false;
        }
    }

    fn event(&mut self) -> S3Result<Event<'a>> {
        self.events += 1;
        if self.events > EVENTS_WITHOUT_BREAK_MAX {
            return Err(malformed());
        }
        self.reader.read_event().map_err(|_| malformed())
    }

    /// Goes one deeper, checks the tag, and notes its local name.
    fn enter(&mut self, start: &BytesStart<'_>) -> S3Result<()> {
        let is_long = start.local_name().into_inner().len() > NAME_BYTES_MAX;
        if self.depth == XML_DEPTH_MAX || self.count == ELEMENTS_MAX || is_long {
            return Err(malformed());
        }
        self.depth += 1;
        self.count += 1;
        self.name.clear();
        self.name.push_str(start.local_name().into_inner());
        if !self
            .name
            .starts_with(|first: char| first.is_alphabetic() || first == '_')
        {
            return Err(malformed());
        }
        check_attributes(start)
    }
}

/// The one error of a body that is not what it should be.
pub(crate) fn malformed() -> S3Error {
    S3Error::new(ErrorCode::MalformedXML)
}

fn check_attributes(start: &BytesStart<'_>) -> S3Result<()> {
    for (count, attribute) in start.attributes().enumerate() {
        let attribute = attribute.map_err(|_| malformed())?;
        let is_long = attribute.value.len() > NAME_BYTES_MAX;
        if count == ATTRIBUTES_MAX || is_long || attribute.value.contains('<') {
            return Err(malformed());
        }
        attribute
            .normalized_value(XmlVersion::Implicit1_0)
            .map_err(|_| malformed())?;
    }
    Ok(())
}

/// One of XML's five entities. No others exist, since no document may declare any.
fn predefined(name: &str) -> S3Result<char> {
    match name {
        "lt" => Ok('<'),
        "gt" => Ok('>'),
        "amp" => Ok('&'),
        "apos" => Ok('\''),
        "quot" => Ok('"'),
        _ => Err(malformed()),
    }
}

/// Appends `part`, as far as there is room: a text that has more than `bytes_max` bytes takes no more.
fn push<'a>(text: &mut Cow<'a, str>, part: Cow<'a, str>, bytes_max: usize) -> S3Result<()> {
    check_characters(&part)?;
    let room = (bytes_max + 1).saturating_sub(text.len());
    if room == 0 {
        return Ok(());
    }
    // Twice as much, of which line ends leave at least one half.
    let part = beginning(normal_lines(beginning(part, room * 2)), room);
    if text.is_empty() {
        *text = part;
    } else {
        text.to_mut().push_str(&part);
    }
    Ok(())
}

/// The first `bytes` bytes, and the rest of a character that they end in.
fn beginning(text: Cow<'_, str>, bytes: usize) -> Cow<'_, str> {
    let end = text.ceil_char_boundary(bytes);
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[..end]),
        Cow::Owned(mut text) => {
            text.truncate(end);
            Cow::Owned(text)
        }
    }
}

/// An error for a character that XML 1.0 does not have unescaped.
fn check_characters(part: &str) -> S3Result<()> {
    let is_fine = |b: u8| b >= b' ' || matches!(b, b'\n' | b'\t' | b'\r');
    // A block at a time without a way out, so that it is vectorised: a text may be as long as the body.
    let is_block_fine = |block: &[u8]| block.iter().fold(true, |fine, &b| fine & is_fine(b));
    let is_all_fine = part.as_bytes().chunks(4096).all(is_block_fine);
    is_all_fine.then_some(()).ok_or_else(malformed)
}

/// Line ends as XML has them.
fn normal_lines(part: Cow<'_, str>) -> Cow<'_, str> {
    match part.contains('\r') {
        false => part,
        true => Cow::Owned(part.replace("\r\n", "\n").replace('\r', "\n")),
    }
}

fn is_space(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT_BYTES_MAX: usize = 10;

    /// Reads `body` as `<a>` with children of text, passing over what is named `skip`.
    fn read(body: &[u8]) -> S3Result<Vec<(String, String)>> {
        let mut elements = Elements::open(body, "a")?;
        let mut children = Vec::new();
        while let Some(name) = elements.child()? {
            if name == "skip" {
                elements.skip()?;
            } else {
                let name = name.to_owned();
                children.push((name, elements.text(TEXT_BYTES_MAX)?.into_owned()));
            }
            elements.takes_a_break();
        }
        elements.finish()?;
        Ok(children)
    }

    fn text(body: &str) -> Option<String> {
        let mut children = read(format!("<a><b>{body}</b></a>").as_bytes()).ok()?;
        assert_eq!(children.len(), 1);
        children.pop().map(|(_, text)| text)
    }

    #[test]
    fn documents_of_clients_are_read() {
        let table: &[(&str, &[(&str, &str)])] = &[
            ("<a/>", &[]),
            ("<a></a>", &[]),
            ("<a><b/></a>", &[("b", "")]),
            ("<a><b>1</b><c>2</c></a>", &[("b", "1"), ("c", "2")]),
            (
                "\u{feff}<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<a>\n <b>1</b>\n</a>\n",
                &[("b", "1")],
            ),
            (
                "<?xml version='1.0' encoding='utf-8' standalone='yes'?><a><b>1</b></a>",
                &[("b", "1")],
            ),
            (
                "<a xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><b>1</b></a>",
                &[("b", "1")],
            ),
            (
                "<s:a xmlns:s=\"urn:x\"><s:b s:t='&lt;'>1</s:b></s:a>",
                &[("b", "1")],
            ),
            (
                "<!-- c --><a><!-- c --><b>1<!-- c -->2</b></a><!-- c -->",
                &[("b", "12")],
            ),
            ("<a ><b >1</b ></a >", &[("b", "1")]),
            (
                "<a><skip>x<y>&amp;<z/></y></skip><b>1</b><skip/></a>",
                &[("b", "1")],
            ),
        ];
        for (body, children) in table {
            let got = read(body.as_bytes()).unwrap_or_else(|error| panic!("{body}: {error}"));
            let got: Vec<_> = got
                .iter()
                .map(|(name, text)| (name.as_str(), text.as_str()))
                .collect();
            assert_eq!(&got, children, "{body}");
        }
    }

    #[test]
    fn text_is_unescaped_once() {
        let table = [
            ("a&lt;b&gt;&amp;&quot;&apos;", "a<b>&\"'"),
            ("&amp;lt;", "&lt;"),
            ("&#xD;&#10;&#x1;&#x1F600;", "\r\n\u{1}\u{1F600}"),
            ("a\r\nb\rc\nd\te", "a\nb\nc\nd\te"),
            ("<![CDATA[<x>&amp;]]>y", "<x>&amp;y"),
            (" pad ", " pad "),
            ("\u{e9}\u{1F600}", "\u{e9}\u{1F600}"),
        ];
        for (body, expected) in table {
            assert_eq!(text(body).as_deref(), Some(expected), "{body}");
        }
    }

    #[test]
    fn what_is_not_well_formed_is_refused() {
        let table: &[&str] = &[
            "",
            " ",
            "a",
            "<a",
            "<a>",
            "<a><b></a></b>",
            "<a></b>",
            "<a></a><a></a>",
            "<a></a>x",
            "x<a></a>",
            "<b></b>",
            "<a>x</a>",
            "<a><b>x<c/></b></a>",
            "<a><b>&nbsp;</b></a>",
            "<a><b>&</b></a>",
            "<a><b>&#0;</b></a>",
            "<a><b>&#xD800;</b></a>",
            "<a><b>&#x110000;</b></a>",
            "<a><b>&#99999999999999;</b></a>",
            "<a><b>\u{1}</b></a>",
            "<a><b>\0</b></a>",
            "<a><b>]]></b></a>",
            "<a><skip>&x;</skip></a>",
            "<a x=1></a>",
            "<a x='1' x='2'></a>",
            "<a x='<'></a>",
            "<a x='&x;'></a>",
            "<a><?php echo ?></a>",
            "<?xml-stylesheet href='x'?><a/>",
            "<a/><?xml version='1.0'?>",
            " <?xml version='1.0'?><a/>",
            "<?xml version='1.0' encoding='ISO-8859-1'?><a/>",
            "<!DOCTYPE a><a/>",
            "<!doctype a><a/>",
            "<a><!-- -- --></a>",
            "<a><!-- </a>",
            "<a><![CDATA[</a>",
        ];
        for body in table {
            let error = read(body.as_bytes()).expect_err(body);
            assert_eq!(error.code, ErrorCode::MalformedXML, "{body}");
        }
        assert!(read(b"<a><b>\xff</b></a>").is_err());
    }

    #[test]
    fn entities_cannot_be_declared() {
        let laughs =
            "<?xml version=\"1.0\"?><!DOCTYPE a [<!ENTITY x \"ha\"><!ENTITY y \"&x;&x;\">]><a><b>&y;</b></a>";
        let file = "<!DOCTYPE a [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><a><b>&x;</b></a>";
        for body in [laughs, file] {
            assert_eq!(read(body.as_bytes()).unwrap_err().code, ErrorCode::MalformedXML);
        }
    }

    #[test]
    fn depth_and_length_are_bounded() {
        let nested = |depth: usize| format!("<a>{}{}</a>", "<skip>".repeat(depth), "</skip>".repeat(depth));
        assert!(read(nested(XML_DEPTH_MAX - 1).as_bytes()).is_ok());
        assert_eq!(
            read(nested(XML_DEPTH_MAX).as_bytes()).unwrap_err().code,
            ErrorCode::MalformedXML
        );
        assert_eq!(
            read("<skip>".repeat(1_000_000).as_bytes()).unwrap_err().code,
            ErrorCode::MalformedXML
        );

        let long = format!("<a>{}</a>", " ".repeat(XML_BODY_BYTES_MAX));
        assert_eq!(
            read(long.as_bytes()).unwrap_err().code,
            ErrorCode::MaxMessageLengthExceeded
        );
    }

    #[test]
    fn of_a_long_text_the_beginning_is_kept() {
        let table = [
            ("a".repeat(10), "a".repeat(10)),
            ("a".repeat(11), "a".repeat(11)),
            ("a".repeat(5000), "a".repeat(11)),
            ("&#97;".repeat(5000), "a".repeat(11)),
            ("a<!-- -->".repeat(5000), "a".repeat(11)),
            ("<![CDATA[ab]]>".repeat(5000), "ab".repeat(5) + "a"),
            ("\r\n".repeat(5000), "\n".repeat(11)),
            ("\u{1F600}".repeat(5000), "\u{1F600}".repeat(3)),
            (
                format!("aaaaaaaaa{}", "\u{1F600}".repeat(9)),
                "aaaaaaaaa\u{1F600}".to_owned(),
            ),
        ];
        for (body, kept) in table {
            assert_eq!(text(&body), Some(kept), "{}", &body[..9]);
        }
        // What is not kept must be well formed all the same.
        for bad in ["\u{1}", "]]>", "&x;", "<c/>"] {
            assert_eq!(text(&("a".repeat(5000) + bad)), None, "{bad}");
        }
    }

    #[test]
    fn what_comes_between_two_breaks_is_bounded() {
        for noise in ["<!---->", "<![CDATA[a]]>", "&#97;", "a<!---->"] {
            let body = |count: usize| format!("<a><b>{}</b></a>", noise.repeat(count));
            assert!(
                read(body(EVENTS_WITHOUT_BREAK_MAX / 2 - 10).as_bytes()).is_ok(),
                "{noise}"
            );
            assert!(
                read(body(EVENTS_WITHOUT_BREAK_MAX).as_bytes()).is_err(),
                "{noise}"
            );
        }
        let comments = format!("<a>{}</a>", "<!---->".repeat(EVENTS_WITHOUT_BREAK_MAX));
        assert!(read(comments.as_bytes()).is_err());
    }

    #[test]
    fn names_and_attributes_are_bounded() {
        let long = "n".repeat(NAME_BYTES_MAX + 1);
        assert!(read(format!("<a><{long}/></a>").as_bytes()).is_err());
        assert!(read(format!("<a><b x='{long}'/></a>").as_bytes()).is_err());
        let within = &long[1..];
        assert!(read(format!("<a><{within} x='{within}'/></a>").as_bytes()).is_ok());
    }

    #[test]
    fn elements_are_bounded() {
        let body = |skips: usize| format!("<a>{}</a>", "<skip/>".repeat(skips));
        assert!(read(body(ELEMENTS_MAX - 1).as_bytes()).is_ok());
        assert_eq!(
            read(body(ELEMENTS_MAX).as_bytes()).unwrap_err().code,
            ErrorCode::MalformedXML
        );
    }

    #[test]
    fn many_attributes_are_refused_before_they_cost_anything() {
        let attributes: String = (0..300_000).map(|i| format!(" a{i}=''")).collect();
        assert_eq!(
            read(format!("<a{attributes}/>").as_bytes()).unwrap_err().code,
            ErrorCode::MalformedXML
        );
    }
}
