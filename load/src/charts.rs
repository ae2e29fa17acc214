//! Charts over time as inline SVG. Colours are the page's, by class.

use std::fmt::Write;

/// Size of a chart in its own units, and the margins for labels.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 28.0;
/// From so many seconds on points would hide the line.
const CROWDED: usize = 90;
/// Lines across.
const LINES: u32 = 4;

/// A line of a chart: its name and a value for each second, where there is one.
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) values: Vec<Option<f64>>,
}

/// A chart of some lines in one unit.
pub(crate) fn chart(title: &str, unit: &str, lines: &[Line]) -> String {
    let seconds = lines.iter().map(|line| line.values.len()).max().unwrap_or(0);
    let highest = lines.iter().flat_map(|line| &line.values).flatten().copied().fold(0.0, f64::max);
    if seconds == 0 || lines.iter().all(|line| line.values.iter().all(Option::is_none)) {
        return String::new();
    }
    let axis = Axis { top: round_up(highest), seconds };
    let mut svg = format!("<figure><figcaption>{title}{}</figcaption>", legend(lines, unit));
    let _ = write!(svg, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">");
    svg.push_str(&axis.grid());
    for (number, line) in lines.iter().enumerate() {
        svg.push_str(&axis.path(number, line, unit));
    }
    svg.push_str("</svg></figure>");
    svg
}

fn legend(lines: &[Line], unit: &str) -> String {
    let items = lines.iter().enumerate().filter(|(_, line)| line.values.iter().any(Option::is_some));
    let items: String = items.map(|(n, line)| format!("<span class=\"key k{n}\">{}</span>", line.name)).collect();
    format!(" <small>{unit}</small><span class=\"legend\">{items}</span>")
}

struct Axis {
    top: f64,
    seconds: usize,
}

impl Axis {
    fn x(&self, second: usize) -> f64 {
        let span = (self.seconds.max(2) - 1) as f64;
        LEFT + (WIDTH - LEFT - RIGHT) * second as f64 / span
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value / self.top).clamp(0.0, 1.0)
    }

    fn grid(&self) -> String {
        let mut svg = String::new();
        for line in 0..=LINES {
            let value = self.top * f64::from(line) / f64::from(LINES);
            let (y, right) = (self.y(value), WIDTH - RIGHT);
            let _ = write!(svg, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
            let (x, y) = (LEFT - 6.0, y + 4.0);
            let _ = write!(svg, "<text class=\"y\" x=\"{x}\" y=\"{y:.1}\">{}</text>", short(value));
        }
        let step = (self.seconds / 8).max(1);
        for second in (0..self.seconds).step_by(step) {
            let (x, y) = (self.x(second), HEIGHT - 8.0);
            let _ = write!(svg, "<text class=\"x\" x=\"{x:.1}\" y=\"{y}\">{second} s</text>");
        }
        svg
    }

    /// A line, broken where there is no value, with a point for each that says it.
    fn path(&self, number: usize, line: &Line, unit: &str) -> String {
        let (mut path, mut points, mut is_drawn) = (String::new(), String::new(), false);
        let radius = if self.seconds > CROWDED { 1.0 } else { 2.5 };
        for (second, value) in line.values.iter().enumerate() {
            let Some(value) = value else {
                is_drawn = false;
                continue;
            };
            let (x, y) = (self.x(second), self.y(*value));
            let _ = write!(path, "{}{x:.1} {y:.1}", if is_drawn { "L" } else { "M" });
            let told = format!("{} at {second} s: {} {unit}", line.name, short(*value));
            let _ = write!(
                points,
                "<circle class=\"p{number}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"><title>{told}</title></circle>"
            );
            is_drawn = true;
        }
        format!("<path class=\"l{number}\" d=\"{path}\"/>{points}")
    }
}

/// The next of 1, 2, 4, 5, 8 times a power of ten, so that quarters of it are short numbers.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let step = [1.0, 2.0, 4.0, 5.0, 8.0, 10.0].into_iter().find(|step| step * power >= value * 0.999_999);
    step.unwrap_or(10.0) * power
}

/// A number in few digits.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0,
        small if small < 0.1 => 4,
        small if small < 1.0 => 3,
        small if small < 10.0 => 2,
        small if small < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_short_number_that_is_not_below_the_highest_value() {
        for (value, top) in
            [(0.0, 1.0), (0.9, 1.0), (1.0, 1.0), (3.2, 4.0), (41.0, 50.0), (999.0, 1_000.0), (0.03, 0.04)]
        {
            assert!((round_up(value) - top).abs() < 1e-9, "{value} gives {}", round_up(value));
        }
    }

    #[test]
    fn a_line_is_broken_where_there_is_no_value() {
        let values = vec![Some(1.0), Some(2.0), None, Some(1.0)];
        let svg = chart("Latency", "ms", &[Line { name: "p99", values }]);
        assert_eq!(svg.matches("<circle").count(), 3);
        let path = svg.split("d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (2, 1));
    }

    #[test]
    fn nothing_to_show_is_no_chart() {
        assert_eq!(chart("CPU", "%", &[Line { name: "relay", values: vec![None, None] }]), "");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 0.25, 1.5, 12.0, 1234.5].map(short), ["0", "0.25", "1.5", "12", "1234"]);
    }
}
