//! Headers of answers, parsed. Pure: no client, no clock.

/// Where the next page of a list is: `Link: </v2/…>; rel="next"`. `None`: nowhere.
/// <https://datatracker.ietf.org/doc/html/rfc8288#section-3>
pub(crate) fn next_page(link: &str) -> Option<&str> {
    let mut rest = link;
    loop {
        let (_, after) = rest.split_once('<')?;
        let (address, parameters) = after.split_once('>')?;
        let end = parameters.find('<').unwrap_or(parameters.len());
        let (own, others) = parameters.split_at(end);
        let is_next = own.split([';', ',']).any(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            name.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"') == "next"
        });
        if is_next {
            return Some(address);
        }
        rest = others;
    }
}

/// How many bytes an upload session holds, by its `Range: 0-99` (without `bytes`, though some say
/// it). `None`: not such a range. `0-0` means nothing to some registries and one byte to others;
/// it is read as nothing, since sending a byte again is found out and losing one is not.
/// <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-a-blob-in-chunks>
pub(crate) fn held(range: &str) -> Option<u64> {
    let range = range.trim();
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let (first, last) = range.split_once('-')?;
    match (first.parse().ok()?, last.parse().ok()?) {
        (0, 0) => Some(0),
        (0, last) => u64::checked_add(last, 1),
        _ => None,
    }
}

/// First byte and whole size that a partial answer gives: `Content-Range: bytes 5-9/10`, where the
/// size may be `*`. `None`: no such range.
/// <https://datatracker.ietf.org/doc/html/rfc9110#section-14.4>
pub(crate) fn content_range(header: &str) -> Option<(u64, Option<u64>)> {
    let (range, size) = header.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.trim().split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let size = match size.trim() {
        "*" => None,
        size => Some(size.parse().ok()?),
    };
    let fits = first <= last && size.is_none_or(|size| last < size);
    fits.then_some((first, size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn links_as_registries_send_them() {
        for (header, expected) in [
            (
                r#"</v2/a/tags/list?last=b&n=2>; rel="next""#,
                Some("/v2/a/tags/list?last=b&n=2"),
            ),
            (
                "<https://r.x/p?a=1,2>;rel=next",
                Some("https://r.x/p?a=1,2"),
            ),
            (
                r#"</first>; rel="first", </next>; rel="next""#,
                Some("/next"),
            ),
            (r#"</next>; title="x"; REL="next""#, Some("/next")),
            (r#"</last>; rel="last""#, None),
            ("</next>", None),
            ("next", None),
            ("<", None),
            ("", None),
        ] {
            assert_eq!(next_page(header), expected, "{header}");
        }
    }

    #[test]
    fn ranges_of_uploads() {
        for (header, expected) in [
            ("0-99", Some(100)),
            ("bytes=0-99", Some(100)),
            (" 0-1 ", Some(2)),
            ("0-0", Some(0)),
            ("1-99", None),
            ("0-18446744073709551615", None),
            ("0--1", None),
            ("", None),
        ] {
            assert_eq!(held(header), expected, "{header}");
        }
    }

    #[test]
    fn ranges_of_answers() {
        for (header, expected) in [
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 0-0/1", Some((0, Some(1)))),
            ("bytes 5-9/*", Some((5, None))),
            ("bytes 5-9/9", None),
            ("bytes 9-5/10", None),
            ("bytes */10", None),
            ("5-9/10", None),
            ("", None),
        ] {
            assert_eq!(content_range(header), expected, "{header}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_parsed_or_not(header in "[<>/;,=\"relnxtbys 0-9*-]{0,40}|\\PC{0,40}") {
            let _ = (next_page(&header), held(&header), content_range(&header));
        }
    }
}
