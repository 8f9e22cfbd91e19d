//! Learning from the outputs of a larger network.
//!
//! A compressed network that is fine-tuned on labels alone forgets what the network it came from knew about
//! the other classes. With a teacher, its outputs are targets as well. Teacher and student may be any
//! modules: all that is needed are their outputs for the same inputs.

use burn::tensor::Tensor;
use burn::tensor::activation::{log_softmax, softmax};
use serde::{Deserialize, Serialize};

/// A loss that pulls a student towards the outputs of a teacher.
///
/// ```text
/// loss = (1 − weight) · L + weight · T² · mean_n Σ_k p_k (log p_k − log q_k)
/// p = softmax(teacher / T),  q = softmax(student / T)
/// ```
///
/// The factor `T²` keeps gradients of the second term as large at high temperatures as at `T = 1`. Below 1 they
/// shrink with the temperature: that is no way to hard labels.
///
/// Hinton, Vinyals and Dean, *Distilling the knowledge in a neural network*, 2015, section 2.
///
/// # Example
/// ```
/// use burn::nn::{LinearConfig, loss::CrossEntropyLossConfig};
/// use burn::tensor::{Device, Distribution, Int, Tensor};
/// use burn_admm::Distillation;
///
/// let device = Device::flex().autodiff();
/// let (teacher, student) = (LinearConfig::new(8, 3).init(&device), LinearConfig::new(8, 3).init(&device));
/// let x = Tensor::<2>::random([4, 8], Distribution::Default, &device);
/// let labels = Tensor::<1, Int>::from_data([0, 1, 2, 0], &device);
///
/// let logits = student.forward(x.clone());
/// let loss = CrossEntropyLossConfig::new().init(&device).forward(logits.clone(), labels);
/// let loss = Distillation::default().loss(loss, logits, teacher.forward(x));
/// let _gradients = loss.backward();
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Distillation {
    /// Softens the outputs of both, above 0.
    pub temperature: f64,
    /// Weight of the teacher, between 0 (labels alone) and 1 (the teacher alone).
    pub weight: f64,
}

impl Default for Distillation {
    /// A temperature of 4, and half the weight for the teacher.
    fn default() -> Self {
        Self {
            temperature: 4.0,
            weight: 0.5,
        }
    }
}

impl Distillation {
    /// The loss on labels and the divergence from the teacher, weighted.
    ///
    /// # Shapes
    /// - `loss` `[1]`
    /// - `student` and `teacher` `[batch, classes]`, before any softmax; no gradient reaches the teacher
    ///
    /// # Panics
    /// If shapes differ, the temperature is not above 0 or the weight not in `[0, 1]`.
    pub fn loss(self, loss: Tensor<1>, student: Tensor<2>, teacher: Tensor<2>) -> Tensor<1> {
        assert!(
            self.temperature > 0.0 && self.temperature.is_finite(),
            "a temperature above 0, not {}",
            self.temperature
        );
        assert!(
            (0.0..=1.0).contains(&self.weight),
            "a weight from 0 to 1, not {}",
            self.weight
        );
        let divergence = self.divergence(student, teacher);
        loss.mul_scalar(1.0 - self.weight) + divergence.mul_scalar(self.weight)
    }

    /// `T² · mean_n Σ_k p_k (log p_k − log q_k)`.
    fn divergence(self, student: Tensor<2>, teacher: Tensor<2>) -> Tensor<1> {
        let (given, wanted) = (student.dims(), teacher.dims());
        assert!(
            given == wanted,
            "a student with outputs {given:?}, a teacher with {wanted:?}"
        );
        let temperature = self.temperature;
        let teacher = teacher.detach().div_scalar(temperature);
        let student = log_softmax(student.div_scalar(temperature), 1);
        let difference = log_softmax(teacher.clone(), 1) - student;
        let per_image = (softmax(teacher, 1) * difference).sum_dim(1);
        per_image.mean().mul_scalar(temperature * temperature)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    fn logits(seed: u64, device: &Device) -> (Tensor<2>, Vec<f64>) {
        let values = burn_sparse::catalogue::values(3 * 5, seed);
        let values: Vec<f32> = values.iter().map(|v| 4.0 * v).collect();
        let exact = values.iter().map(|&v| v.into()).collect();
        let tensor = Tensor::from_data(TensorData::new(values, [3, 5]), device);
        (tensor, exact)
    }

    fn soft(row: &[f64], temperature: f64) -> Vec<f64> {
        let exp: Vec<f64> = row.iter().map(|v| (v / temperature).exp()).collect();
        let sum: f64 = exp.iter().sum();
        exp.iter().map(|e| e / sum).collect()
    }

    fn reference(student: &[f64], teacher: &[f64], temperature: f64) -> f64 {
        let rows = student.chunks(5).zip(teacher.chunks(5));
        let sum: f64 = rows
            .map(|(student, teacher)| {
                let [p, q] = [teacher, student].map(|row| soft(row, temperature));
                let terms = p.iter().zip(&q).map(|(p, q)| p * (p.ln() - q.ln()));
                terms.sum::<f64>()
            })
            .sum();
        temperature * temperature * sum / 3.0
    }

    #[test]
    fn the_divergence_is_that_of_its_formula_and_so_is_its_gradient() {
        let device = Device::flex().autodiff();
        for temperature in [0.5, 1.0, 4.0] {
            let ((student, s), (teacher, t)) = (logits(1, &device), logits(2, &device));
            let distillation = Distillation {
                temperature,
                weight: 0.25,
            };
            let student = student.require_grad();
            let labels = Tensor::<1>::from_data([2.0], &device);
            let loss = distillation.loss(labels, student.clone(), teacher);
            let value: f32 = loss.clone().into_scalar();
            let expected = 0.75 * 2.0 + 0.25 * reference(&s, &t, temperature);
            assert!((f64::from(value) - expected).abs() < 1e-5 * expected);

            let gradient = student.grad(&loss.backward()).unwrap();
            let gradient: Vec<f32> = gradient.into_data().try_to_vec().unwrap();
            for (index, &gradient) in gradient.iter().enumerate() {
                let at = |step: f64| {
                    let mut moved = s.clone();
                    moved[index] += step;
                    0.25 * reference(&moved, &t, temperature)
                };
                let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
                assert!((f64::from(gradient) - slope).abs() < 1e-5, "{temperature}");
            }
        }
    }

    #[test]
    fn a_student_that_agrees_has_nothing_to_learn_but_labels() {
        let device = Device::flex();
        let (same, _) = logits(3, &device);
        let loss = Tensor::<1>::from_data([1.5], &device);
        let value: f32 = Distillation::default()
            .loss(loss, same.clone(), same + 7.0)
            .into_scalar();
        assert!((value - 0.75).abs() < 1e-6);
    }

    #[test]
    #[should_panic(expected = "a temperature above 0")]
    fn no_temperature_is_no_distribution() {
        let device = Device::flex();
        let (same, _) = logits(3, &device);
        let loss = Tensor::<1>::from_data([1.5], &device);
        let cold = Distillation {
            temperature: 0.0,
            weight: 0.5,
        };
        drop(cold.loss(loss, same.clone(), same));
    }
}
