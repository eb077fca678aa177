//! What a run found, as a table for people and as a picture for the docs.

use std::fmt::Write as _;

use comfy_table::Table;

/// A figure, and what it has to be.
pub struct Bar {
    what: String,
    figure: f64,
    bound: f64,
    at_least: bool,
    unit: &'static str,
}

impl Bar {
    pub fn least(what: &str, figure: f64, bound: f64, unit: &'static str) -> Self {
        Self { what: what.to_owned(), figure, bound, at_least: true, unit }
    }

    pub fn most(what: &str, figure: f64, bound: f64, unit: &'static str) -> Self {
        Self { what: what.to_owned(), figure, bound, at_least: false, unit }
    }

    pub fn is_met(&self) -> bool {
        if self.at_least { self.figure >= self.bound } else { self.figure <= self.bound }
    }

    fn row(&self) -> [String; 4] {
        let sign = if self.at_least { ">=" } else { "<=" };
        let number = |value: f64| match value.abs() {
            large if large >= 100.0 => format!("{value:.0}"),
            _ => format!("{value:.2}"),
        };
        [
            self.what.clone(),
            format!("{} {}", number(self.figure), self.unit).trim_end().to_owned(),
            format!("{sign} {} {}", number(self.bound), self.unit).trim_end().to_owned(),
            if self.is_met() { "met" } else { "MISSED" }.to_owned(),
        ]
    }
}

/// A contender's rounds.
pub struct Row {
    pub name: &'static str,
    /// Messages a second, round by round.
    pub rates: Vec<f64>,
    /// CPU time of its process for each message, in microseconds, round by round; none for one within the broker.
    pub costs: Vec<f64>,
}

impl Row {
    pub fn rate(&self) -> f64 {
        median(&self.rates)
    }
}

pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

pub fn contenders(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.set_header([
        "contender",
        "messages a second (median)",
        "lowest",
        "highest",
        "of the worker's",
        "CPU us each",
    ]);
    let worker = rows.first().map_or(f64::NAN, Row::rate);
    for row in rows {
        let extreme = |pick: fn(f64, f64) -> f64, start| row.rates.iter().copied().fold(start, pick);
        table.add_row([
            row.name.to_owned(),
            format!("{:.0}", row.rate()),
            format!("{:.0}", extreme(f64::min, f64::INFINITY)),
            format!("{:.0}", extreme(f64::max, 0.0)),
            format!("{:.2}", row.rate() / worker),
            if row.costs.is_empty() { "in the broker".to_owned() } else { format!("{:.1}", median(&row.costs)) },
        ]);
    }
    table
}

pub fn bars(bars: &[Bar]) -> Table {
    let mut table = Table::new();
    table.set_header(["bar", "figure", "must be", ""]);
    table.add_rows(bars.iter().map(Bar::row));
    table
}

/// A bar for each contender, with a dot for each round.
pub fn plot(rows: &[Row]) -> String {
    const LEFT: f64 = 230.0;
    const WIDTH: f64 = 520.0;
    const STEP: f64 = 44.0;
    let highest = rows.iter().flat_map(|row| &row.rates).copied().fold(1.0, f64::max);
    let x = |rate: f64| LEFT + rate / highest * WIDTH;
    let height = STEP.mul_add(f64::from(u32::try_from(rows.len()).unwrap_or(0)), 70.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 840 {height:.0}\" font-family=\"sans-serif\" \
         font-size=\"14\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"20\" y=\"28\" font-size=\"16\">One-email requests, messages a second: median, and each round</text>\n"
    );
    let mut y = 48.0;
    for (row, colour) in rows.iter().zip(["#c2410c", "#475569", "#475569", "#475569"]) {
        let middle = y + STEP / 2.0 - 4.0;
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>",
            LEFT - 10.0,
            middle + 5.0,
            row.name
        );
        let length = x(row.rate()) - LEFT;
        let _ = writeln!(
            svg,
            "<rect x=\"{LEFT}\" y=\"{:.0}\" width=\"{length:.1}\" height=\"24\" fill=\"{colour}\"/>",
            middle - 12.0
        );
        for rate in &row.rates {
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{middle:.0}\" r=\"3\" fill=\"white\" stroke=\"black\"/>",
                x(*rate)
            );
        }
        let end = row.rates.iter().copied().fold(0.0, f64::max);
        let _ = writeln!(svg, "<text x=\"{:.0}\" y=\"{:.0}\">{:.0}</text>", x(end) + 8.0, middle + 5.0, row.rate());
        y += STEP;
    }
    svg.push_str("</svg>\n");
    svg
}
