//! One option for each of many layers, the least harm within a budget.

/// What an option of a layer costs, and what harm it does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Choice {
    pub(crate) cost: f64,
    pub(crate) harm: f64,
}

/// Steps into which the budget is divided.
const STEPS: usize = 8192;

/// The index of an option for each group, so that costs add up to at most `limit` and harms to little.
///
/// The multiple-choice knapsack, by dynamic programming over the budget beyond the cheapest options, in
/// `STEPS` steps; costs are rounded up to steps, so that the result fits for certain. What rounding left
/// is spent on the best single exchanges. The sum of harms is at most the least one possible for a budget
/// that is smaller by a step for each group. A limit that the cheapest options exceed only by what sums of
/// so many numbers are rounded by is theirs: limits are often told as a part of a sum.
///
/// # Errors
/// The sum of the cheapest options, where that is above the limit.
///
/// # Panics
/// If a group is empty, or a cost or harm is no finite number.
pub(crate) fn choose(groups: &[Vec<Choice>], limit: f64) -> Result<Vec<usize>, f64> {
    let fronts: Vec<Vec<usize>> = groups.iter().map(|group| front(group)).collect();
    let cheapest: f64 = groups.iter().zip(&fronts).map(|(g, f)| g[f[0]].cost).sum();
    let rounding = f64::EPSILON * (groups.len() + 2) as f64;
    if cheapest > limit + rounding * cheapest.abs() {
        return Err(cheapest);
    }
    let limit = limit.max(cheapest);
    let step = (limit - cheapest) / STEPS as f64;
    // Least harm for every number of steps, and the option of each group that gave it.
    let mut least = vec![0.0; STEPS + 1];
    let mut taken: Vec<Vec<u32>> = Vec::with_capacity(groups.len());
    for (group, front) in groups.iter().zip(&fronts) {
        let mut next = vec![f64::INFINITY; STEPS + 1];
        let mut which = vec![0; STEPS + 1];
        for (place, &option) in front.iter().enumerate() {
            let above = group[option].cost - group[front[0]].cost;
            let steps = match above {
                0.0 => 0,
                above if step > 0.0 => (above / step).ceil() as usize,
                _ => continue,
            };
            for budget in steps..=STEPS {
                let harm = least[budget - steps] + group[option].harm;
                if harm < next[budget] {
                    next[budget] = harm;
                    which[budget] = place as u32;
                }
            }
        }
        least = next;
        taken.push(which);
    }
    let mut chosen = vec![0; groups.len()];
    let mut budget = STEPS;
    for (index, which) in taken.iter().enumerate().rev() {
        let (group, front) = (&groups[index], &fronts[index]);
        let option = front[which[budget] as usize];
        let above = group[option].cost - group[front[0]].cost;
        if above > 0.0 {
            budget -= (above / step).ceil() as usize;
        }
        chosen[index] = option;
    }
    exchange(groups, &fronts, limit, &mut chosen);
    Ok(chosen)
}

/// Single exchanges that still fit, those that spare most harm first.
fn exchange(groups: &[Vec<Choice>], fronts: &[Vec<usize>], limit: f64, chosen: &mut [usize]) {
    loop {
        let spent: f64 = groups.iter().zip(&*chosen).map(|(g, &c)| g[c].cost).sum();
        let mut best: Option<(f64, usize, usize)> = None;
        for (index, (group, front)) in groups.iter().zip(fronts).enumerate() {
            let now = group[chosen[index]];
            for &option in front {
                let spared = now.harm - group[option].harm;
                let fits = spent - now.cost + group[option].cost <= limit;
                if fits && spared > best.map_or(0.0, |(most, ..)| most) {
                    best = Some((spared, index, option));
                }
            }
        }
        match best {
            Some((_, index, option)) => chosen[index] = option,
            None => return,
        }
    }
}

/// The options that none cheaper, or as cheap, is better than: rising cost, falling harm.
fn front(group: &[Choice]) -> Vec<usize> {
    let finite = |choice: &Choice| choice.cost.is_finite() && choice.harm.is_finite();
    assert!(
        !group.is_empty() && group.iter().all(finite),
        "a group without options, or one whose cost or harm is no number"
    );
    let mut order: Vec<usize> = (0..group.len()).collect();
    order.sort_by(|&a, &b| {
        let (a, b) = (group[a], group[b]);
        a.cost.total_cmp(&b.cost).then(a.harm.total_cmp(&b.harm))
    });
    let mut front: Vec<usize> = Vec::new();
    for option in order {
        let better = |&last: &usize| group[option].harm < group[last].harm;
        if front.last().is_none_or(better) {
            front.push(option);
        }
    }
    front
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Least harm within the limit, over all combinations.
    fn brute(groups: &[Vec<Choice>], limit: f64) -> Option<f64> {
        let Some((first, rest)) = groups.split_first() else {
            return (limit >= 0.0).then_some(0.0);
        };
        let harms = first.iter().filter_map(|choice| {
            let left = limit - choice.cost;
            (left >= 0.0).then(|| Some(choice.harm + brute(rest, left)?))?
        });
        harms.min_by(f64::total_cmp)
    }

    #[test]
    fn it_fits_and_is_as_good_as_all_combinations() {
        let rng = &mut ChaCha8Rng::seed_from_u64(1);
        for case in 0..200 {
            let count = rng.random_range(1..6);
            let groups: Vec<Vec<Choice>> = (0..count)
                .map(|_| {
                    let options = rng.random_range(1..6);
                    let mut choice = || Choice {
                        cost: rng.random_range(0.0..10.0),
                        harm: rng.random_range(0.0..1.0),
                    };
                    (0..options).map(|_| choice()).collect()
                })
                .collect();
            let limit = rng.random_range(0.0..8.0) * f64::from(count);
            let cheapest: f64 = groups
                .iter()
                .map(|g| g.iter().map(|c| c.cost).fold(f64::INFINITY, f64::min))
                .sum();
            match choose(&groups, limit) {
                Err(least) => {
                    assert!(limit < cheapest, "case {case}");
                    assert!((least - cheapest).abs() < 1e-12);
                }
                Ok(chosen) => {
                    let picked = || groups.iter().zip(&chosen).map(|(g, &c)| g[c]);
                    let (cost, harm): (f64, f64) = (
                        picked().map(|c| c.cost).sum(),
                        picked().map(|c| c.harm).sum(),
                    );
                    assert!(cost <= limit, "case {case}: {cost} of {limit}");
                    let step = (limit - cheapest) / STEPS as f64;
                    let best = brute(&groups, limit).unwrap();
                    let with_less = brute(&groups, limit - step * f64::from(count));
                    assert!(harm >= best - 1e-9, "case {case}");
                    assert!(with_less.is_none_or(|h| harm <= h + 1e-9), "case {case}");
                }
            }
        }
    }

    #[test]
    fn the_cheapest_fit_a_budget_that_has_room_for_no_more() {
        let group = |costs: &[f64]| {
            let of = |&cost: &f64| Choice {
                cost,
                harm: 1.0 / (1.0 + cost),
            };
            costs.iter().map(of).collect::<Vec<_>>()
        };
        let groups = [group(&[3.0, 1.0, 2.0]), group(&[5.0])];
        assert_eq!(choose(&groups, 6.0), Ok(vec![1, 0]));
        assert_eq!(choose(&groups, 7.0), Ok(vec![2, 0]));
        assert_eq!(choose(&groups, f64::MAX), Ok(vec![0, 0]));
        assert_eq!(choose(&groups, 5.9), Err(6.0));
        assert_eq!(choose(&[], 0.0), Ok(vec![]));
    }

    #[test]
    fn a_limit_told_as_the_part_that_is_least_is_kept() {
        let rng = &mut ChaCha8Rng::seed_from_u64(2);
        for case in 0..1000 {
            let choice = |cost: f64| Choice { cost, harm: cost };
            let dense: Vec<f64> = (0..20).map(|_| rng.random_range(0.001..1.0)).collect();
            let rest: f64 = rng.random_range(0.0..1.0);
            let groups: Vec<Vec<Choice>> = dense
                .iter()
                .map(|&cost| vec![choice(cost), choice(0.5 * cost)])
                .collect();
            let whole: f64 = dense.iter().sum();
            // Summed from the other end, and told as a part of the whole.
            let least: f64 = dense.iter().rev().map(|cost| 0.5 * cost).sum();
            let chosen = choose(&groups, (least + rest) / whole * whole - rest);
            assert_eq!(chosen, Ok(vec![1; 20]), "case {case}");
            let chosen = choose(&groups, least * (1.0 - 1e-9));
            assert!(chosen.is_err(), "case {case}");
        }
    }
}
