use super::*;

/// What a list holds: each entry's line, and its address or what is wrong with it.
fn told(format: Format, column: &str, text: &[u8]) -> Result<Vec<String>, ListError> {
    let mut told = Vec::new();
    let reading = Reading { format, column: column.to_owned(), delimiter: b',' };
    read(text, &reading, |entry| {
        let what = match entry.email {
            Ok(email) => email.as_str().to_owned(),
            Err(invalid) => format!("{:?}", invalid.fault),
        };
        told.push(format!("{} {what}", entry.line));
        true
    })?;
    Ok(told)
}

#[test]
fn plain_lines_may_end_in_any_way_and_be_blank() {
    let text = b"\xEF\xBB\xBFann@x.de\r\n\r\n  bob@x.de \nnobody\n\xFFx@y\neve@x.de";
    let wanted = ["1 ann@x.de", "3 bob@x.de", "4 Email(At)", "5 Encoding", "6 eve@x.de"];
    assert_eq!(told(Format::Lines, "", text).unwrap(), wanted);
    assert!(told(Format::Lines, "", b"").unwrap().is_empty());
}

#[test]
fn a_line_without_end_is_passed_over_and_what_follows_is_read() {
    let mut text = vec![b'a'; RECORD_MAX + 5];
    text.extend(b"\nann@x.de\n");
    assert_eq!(told(Format::Lines, "", &text).unwrap(), ["1 TooLong", "2 ann@x.de"]);
    let exact = [&vec![b'a'; RECORD_MAX - 1][..], b"\nann@x.de"].concat();
    assert_eq!(told(Format::Lines, "", &exact).unwrap(), ["1 Email(TooLong)", "2 ann@x.de"]);
}

#[test]
fn a_column_is_found_by_its_name_among_quotes_and_commas() {
    let text =
        b"\xEF\xBB\xBFname,E-Mail,\"note, long\"\n\"Smith, A\",ann@x.de,\"two\nlines\"\nBob\n\"\",  bob@x.de ,\n";
    let wanted = ["2 ann@x.de", "4 Missing", "5 bob@x.de"];
    assert_eq!(told(Format::Csv, "e-mail", text).unwrap(), wanted);
    assert_eq!(told(Format::Csv, "email", b"email\nann@x.de\n\nx\n").unwrap(), ["2 ann@x.de", "3 Email(At)"]);
    assert!(told(Format::Csv, "email", b"").unwrap().is_empty());
    let both = told(Format::Csv, "Email", b"email,Email\na@x,b@x\n").unwrap();
    assert_eq!(both, ["2 b@x"], "the exact name comes first");
}

#[test]
fn a_column_that_is_not_there_is_told_with_those_that_are_and_never_with_an_address() {
    let error = told(Format::Csv, "email", b"name,mail\n").unwrap_err().to_string();
    assert!(error.contains("'name', 'mail'"), "{error}");
    let error = told(Format::Csv, "email", b"ann@x.de\nbob@x.de\n").unwrap_err().to_string();
    assert!(error.contains("--format lines") && !error.contains("ann"), "{error}");
    assert!(matches!(told(Format::Csv, "Email", b"EMAIL,email\n"), Err(ListError::Twice(_))));
}

#[test]
fn a_quote_that_is_never_closed_does_not_swallow_the_list() {
    let text = [b"email\nann@x.de\n\"bob@x.de\n".to_vec(), b"eve@x.de\n".repeat(300_000)].concat();
    let ended = told(Format::Csv, "email", &text);
    assert!(matches!(ended, Err(ListError::Record { line: 3 })), "{ended:?}");
}

#[test]
fn json_lines_are_strings_or_objects() {
    let text = br#""ann@x.de"
{"mail": "bob@x.de", "email": "other@x.de"}
{"mail": 3}

{"email": "x@y"}
[1]
{"mail
"#;
    let wanted = ["1 ann@x.de", "2 bob@x.de", "3 NotAString", "5 Missing", "6 Kind", "7 Json"];
    assert_eq!(told(Format::Ndjson, "mail", text).unwrap(), wanted);
}

#[test]
fn a_name_suggests_its_format() {
    for (name, format) in [
        ("a.csv", Format::Csv),
        ("a.TSV", Format::Csv),
        ("a.jsonl", Format::Ndjson),
        ("b.ndjson", Format::Ndjson),
        ("list.txt", Format::Lines),
        ("list", Format::Lines),
    ] {
        assert_eq!(Format::guess(Path::new(name)), format, "{name}");
    }
}
