//! Order statistics.

/// Returns the nearest-rank percentile of sorted values: the least value that `percent` of all do not exceed. [`None`]
/// without values.
pub fn percentile<T: Copy>(sorted: &[T], percent: f64) -> Option<T> {
    let rank = (percent / 100.0 * sorted.len() as f64).ceil();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank lies within the slice's length"
    )]
    let index = (rank as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(index).copied()
}

/// Returns the median: of an even count, the mean of the two in the middle. [`None`] without values.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 { Some(upper) } else { Some(f64::midpoint(sorted[middle - 1], upper)) }
}

/// Returns the slope of the line through points of x and y, by Theil and Sen: the median of the slopes between all
/// pairs. Up to 29 % of the points may be outliers. [`None`] without two distinct x.
pub fn robust_slope(points: &[(f64, f64)]) -> Option<f64> {
    let mut slopes = Vec::with_capacity(points.len() * points.len() / 2);
    for (index, (x, y)) in points.iter().enumerate() {
        let later = points[index + 1..].iter().filter(|(other, _)| *other > *x);
        slopes.extend(later.map(|(other_x, other_y)| (other_y - y) / (other_x - x)));
    }
    median(&slopes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let hundred: Vec<u32> = (1..=100).collect();
        assert_eq!(percentile(&hundred, 50.0), Some(50));
        assert_eq!(percentile(&hundred, 99.0), Some(99));
        assert_eq!(percentile(&hundred, 100.0), Some(100));
        assert_eq!(percentile(&hundred, 0.0), Some(1));
        assert_eq!(percentile(&[15, 20, 35, 40, 50], 30.0), Some(20));
        assert_eq!(percentile(&[7], 99.0), Some(7));
        assert_eq!(percentile::<u32>(&[], 50.0), None);
    }

    #[test]
    fn a_slope_survives_outliers() {
        let mut points: Vec<(f64, f64)> = (0..20_u32).map(|x| (f64::from(x), 3.0 * f64::from(x) + 1.0)).collect();
        points[4].1 = 1e9;
        points[17].1 = -1e9;
        let slope = robust_slope(&points).expect("there are twenty points");
        assert!((slope - 3.0).abs() < 1e-9, "{slope}");
        assert_eq!(robust_slope(&[(1.0, 5.0), (1.0, 6.0)]), None);
        assert_eq!(robust_slope(&[]), None);
    }

    #[test]
    fn medians_ignore_the_order() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[9.0]), Some(9.0));
        assert_eq!(median(&[]), None);
    }
}
