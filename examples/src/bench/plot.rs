//! A curve as a drawing: SVG text, without fonts or libraries of the system.

use std::rc::Rc;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::table::digits;
use super::{Axis, BenchError, Crossing, Curve, Row};
use crate::timing::Timing;

const SIZE: (u32, u32) = (760, 480);
// A pair that colour-blind readers tell apart (Okabe and Ito).
const OURS: RGBColor = RGBColor(0, 114, 178);
const DENSE: RGBColor = RGBColor(213, 94, 0);
const GREY: RGBColor = RGBColor(110, 110, 110);

/// What a value on an axis is called.
type Show = Rc<dyn Fn(f64) -> String>;

/// A scale with ticks where something was measured.
#[derive(Clone)]
struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
    ticks: Vec<f64>,
    show: Show,
}

impl Scale {
    /// From the first to the last value measured.
    fn of_values(logarithmic: bool, values: &[f64], show: Show) -> Self {
        let (first, last) = (values[0], values[values.len() - 1]);
        let (low, high) = match (logarithmic, first < last) {
            (true, true) => (first, last),
            (true, false) => (first / 2.0, last * 2.0),
            (false, true) => (first, last),
            (false, false) => (first - 0.5, last + 0.5),
        };
        Self {
            low,
            high,
            logarithmic,
            ticks: values.to_vec(),
            show,
        }
    }

    /// Milliseconds: by factors where sizes are, else from zero.
    fn of_times(logarithmic: bool, least: f64, most: f64) -> Self {
        let (low, high) = if logarithmic {
            (least / 1.3, most * 1.5)
        } else {
            (0.0, most * 1.35)
        };
        let ticks = if logarithmic {
            let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
            decades
                .flat_map(|decade| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(decade)))
                .filter(|tick| (low..=high).contains(tick))
                .collect()
        } else {
            let rough = high / 6.0;
            let decade = 10f64.powi(rough.log10().floor() as i32);
            let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * decade);
            let step = step.into_iter().find(|&step| step >= rough);
            let step = step.unwrap_or(rough);
            (0..8)
                .map(|i| f64::from(i) * step)
                .filter(|&tick| tick <= high)
                .collect()
        };
        Self {
            low,
            high,
            logarithmic,
            ticks,
            show: Rc::new(digits),
        }
    }
}

impl Ranged for Scale {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (start, end): (i32, i32)) -> i32 {
        let scaled = |v: f64| if self.logarithmic { v.ln() } else { v };
        let (low, high) = (scaled(self.low), scaled(self.high));
        let part = (scaled(*value) - low) / (high - low);
        start + (part * f64::from(end - start)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() {
            return Vec::new();
        }
        let every = self
            .ticks
            .len()
            .div_ceil(hint.max_num_points().max(1))
            .max(1);
        self.ticks.iter().copied().step_by(every).collect()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Scale {
    fn format_ext(&self, value: &f64) -> String {
        (self.show)(*value)
    }
}

/// Draws a curve: both times with half their quartiles' distance on either side, and a line where
/// they cross. `None` if nothing of it was measured.
///
/// # Errors
/// [`BenchError::Plot`] if it cannot be drawn.
pub fn draw(
    axis: Axis,
    curve: &Curve,
    rows: &[Row],
    caption: &str,
) -> Result<Option<String>, BenchError> {
    let measured = curve.points.iter().filter_map(|point| {
        let pair = rows.get(point.row)?.measured()?.pair;
        Some((point.at, [pair.sparse, pair.dense]))
    });
    let points: Vec<(f64, [Timing; 2])> = measured.collect();
    if points.is_empty() {
        return Ok(None);
    }
    let mut title = curve.layer.clone();
    if curve.layer != curve.shape {
        title = format!("{} ({})", curve.layer, curve.shape);
    }
    let drawing = Drawing {
        title,
        conditions: format!("{}; {caption}", curve.conditions),
        x_label: axis.label(),
        // Sizes grow by factors, zeros and threads by steps.
        by_factors: matches!(axis, Axis::Channels | Axis::Image | Axis::Batch),
        show: Rc::new(move |value| axis.show(value)),
        points,
        crossings: &curve.crossings,
    };
    drawing.svg().map(Some)
}

/// Times of a sparse and a dense form against something.
pub(crate) struct Drawing<'a> {
    /// The first line.
    pub(crate) title: String,
    /// The second one, smaller.
    pub(crate) conditions: String,
    /// What varies.
    pub(crate) x_label: &'a str,
    /// Whether both axes grow by factors.
    pub(crate) by_factors: bool,
    /// What a value of it is called.
    pub(crate) show: Show,
    /// Its values, ascending, with the times of the sparse and of the dense form; one at least.
    pub(crate) points: Vec<(f64, [Timing; 2])>,
    /// Where both are equal.
    pub(crate) crossings: &'a [Crossing],
}

impl Drawing<'_> {
    /// As SVG.
    ///
    /// # Errors
    /// [`BenchError::Plot`] if it cannot be drawn.
    ///
    /// # Panics
    /// Without points.
    pub(crate) fn svg(&self) -> Result<String, BenchError> {
        let mut svg = String::new();
        paint(self, &mut svg).map_err(|error| BenchError::Plot(error.to_string()))?;
        Ok(svg)
    }
}

fn paint(drawing: &Drawing, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let points = &drawing.points;
    let values: Vec<f64> = points.iter().map(|point| point.0).collect();
    let medians = || points.iter().flat_map(|(_, times)| times.map(|t| t.median));
    let x = Scale::of_values(drawing.by_factors, &values, drawing.show.clone());
    let most = medians().fold(f64::MIN_POSITIVE, f64::max);
    let y = Scale::of_times(drawing.by_factors, medians().fold(most, f64::min), most);
    let top = y.high;
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let text = |size: u32, color: &RGBColor| ("sans-serif", size).into_font().color(color);
    let (first, second) = (drawing.title.as_str(), drawing.conditions.as_str());
    root.draw(&Text::new(first, (16, 10), text(15, &BLACK)))?;
    root.draw(&Text::new(second, (16, 30), text(12, &GREY)))?;
    let area = root.margin(48, 12, 12, 24);
    let mut chart = ChartBuilder::on(&area)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(x, y.clone())?;
    chart
        .configure_mesh()
        .x_desc(drawing.x_label)
        .y_desc("milliseconds")
        .x_labels(16)
        .y_labels(12)
        .bold_line_style(RGBColor(225, 225, 225))
        .label_style(("sans-serif", 12))
        .axis_desc_style(("sans-serif", 13))
        .draw()?;
    for crossing in drawing.crossings {
        let (at, foot) = (crossing.at, y.low);
        let line = [(at, foot), (at, top)];
        chart.draw_series(LineSeries::new(line, GREY.stroke_width(1)))?;
        let label = format!("equal at {}", (drawing.show)(at));
        // On the side with more room.
        let right = at <= (values[0] + values[values.len() - 1]) / 2.0;
        let (side, offset) = if right {
            (HPos::Left, 5)
        } else {
            (HPos::Right, -5)
        };
        let style = text(12, &GREY).pos(Pos::new(side, VPos::Top));
        chart.draw_series(std::iter::once(
            EmptyElement::at((at, top)) + Text::new(label, (offset, 4), style),
        ))?;
    }
    for (form, name, color) in [(0, "sparse", OURS), (1, "dense", DENSE)] {
        let line = points.iter().map(|(at, times)| (*at, times[form].median));
        chart
            .draw_series(LineSeries::new(line.clone(), color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        chart.draw_series(line.map(|at| Circle::new(at, 3, color.filled())))?;
        chart.draw_series(points.iter().map(|(at, times)| {
            let Timing { median, spread, .. } = times[form];
            let clamp = |time: f64| time.clamp(y.low, y.high);
            let (low, high) = (clamp(median - spread / 2.0), clamp(median + spread / 2.0));
            PathElement::new([(*at, low), (*at, high)], color.stroke_width(1))
        }))?;
    }
    // Where the curves of such an axis are not: times grow with sizes, and fall with the others.
    let corner = if y.logarithmic {
        SeriesLabelPosition::LowerRight
    } else {
        SeriesLabelPosition::LowerLeft
    };
    chart
        .configure_series_labels()
        .position(corner)
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(200, 200, 200))
        .label_font(("sans-serif", 13))
        .draw()?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::{failed, row};
    use crate::bench::{Case, Dtype, Pattern, Point};

    fn curve(axis: Axis, values: &[f64]) -> Curve {
        let case = Case {
            layer: "a<b>&\"c\" kind=linear in=3 out=2".parse().unwrap(),
            sparsity: 0.9,
            pattern: Pattern::Unstructured,
            batch: 1,
            dtype: Dtype::F32,
            threads: None,
        };
        let mut curve = Curve::new(axis, &case);
        let points = values.iter().enumerate();
        curve.points = points.map(|(row, &at)| Point { at, row }).collect();
        curve
    }

    #[test]
    fn drawings_are_well_formed_and_mark_the_crossing() {
        let times = [[2.0, 1.0], [1.5, 1.0], [0.5, 1.0]];
        let mut rows: Vec<_> = times.iter().map(|&t| row("a", &[t; 3])).collect();
        let mut curve = curve(Axis::Sparsity, &[0.0, 0.5, 0.9, 0.95]);
        rows.push(failed("a"));
        curve.settle(&rows);
        let svg = draw(Axis::Sparsity, &curve, &rows, "flex & co")
            .unwrap()
            .unwrap();
        assert!(
            svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"),
            "{svg}"
        );
        for text in ["equal at 70 %", "sparse", "dense", "milliseconds", "90 %"] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
        // Names come from files.
        assert!(svg.contains("a&lt;b&gt;&amp;") && svg.contains("flex &amp; co"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn any_number_of_points_on_any_axis_is_drawn() {
        let rows = vec![row("a", &[[1e-4, 2e3]]), row("a", &[[5.0, 1e-6]])];
        for axis in [Axis::Sparsity, Axis::Channels, Axis::Batch, Axis::Threads] {
            for values in [&[0.5, 1.0][..], &[1.0], &[]] {
                let mut curve = curve(axis, values);
                curve.settle(&rows);
                let svg = draw(axis, &curve, &rows, "").unwrap();
                assert_eq!(svg.is_some(), !values.is_empty());
                assert!(!svg.unwrap_or_default().contains("NaN"));
            }
        }
    }
}
