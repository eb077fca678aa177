//! How an input is laid out where it is more than bytes: lines `name: value`, an empty line, the body. People can read
//! it, and a fuzzer can change one part and leave the others.

/// An input in its parts.
pub struct Input<'a> {
    head: Vec<(&'a str, &'a str)>,
    /// What stands behind the empty line.
    pub body: &'a [u8],
}

impl<'a> Input<'a> {
    /// Takes an input apart; without an empty line, or with a head that is no text, all of it is body.
    pub fn of(data: &'a [u8]) -> Self {
        let cut = data.windows(2).position(|two| two == b"\n\n");
        let head = cut.and_then(|at| std::str::from_utf8(&data[..at]).ok());
        match (cut, head) {
            (Some(at), Some(head)) => {
                Self { head: head.lines().filter_map(|line| line.split_once(": ")).collect(), body: &data[at + 2..] }
            }
            _ => Self { head: Vec::new(), body: data },
        }
    }

    /// The lines of the head.
    #[allow(dead_code)]
    pub fn head(&self) -> impl Iterator<Item = (&'a str, &'a str)> + '_ {
        self.head.iter().copied()
    }

    /// A line's value.
    #[allow(dead_code)]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.head.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}
