//! Convolutions to those who walk over a module.

/// `Module` for a convolution, as Burn derives it, but for one thing: the groups are told before the weight
/// is seen, for a weight alone does not show them.
macro_rules! convolution {
    ($layer:ident) => {
        impl burn::module::Module for $layer {
            fn collect_devices(&self, devices: burn::module::Devices) -> burn::module::Devices {
                let devices = burn::module::Module::collect_devices(&self.weight, devices);
                burn::module::Module::collect_devices(&self.bias, devices)
            }

            fn fork(self, device: &burn::tensor::Device) -> Self {
                Self {
                    weight: burn::module::Module::fork(self.weight, device),
                    bias: burn::module::Module::fork(self.bias, device),
                    ..self
                }
            }

            fn to_device(self, device: &burn::tensor::Device) -> Self {
                Self {
                    weight: burn::module::Module::to_device(self.weight, device),
                    bias: burn::module::Module::to_device(self.bias, device),
                    ..self
                }
            }

            fn train(self) -> Self {
                Self {
                    weight: burn::module::Module::train(self.weight),
                    bias: burn::module::Module::train(self.bias),
                    ..self
                }
            }

            fn valid(&self) -> Self {
                Self {
                    weight: burn::module::Module::valid(&self.weight),
                    bias: burn::module::Module::valid(&self.bias),
                    stride: self.stride,
                    kernel_size: self.kernel_size,
                    dilation: self.dilation,
                    groups: self.groups,
                    padding: self.padding.clone(),
                }
            }

            fn materialize(self) -> Self {
                Self {
                    weight: burn::module::Module::materialize(self.weight),
                    bias: burn::module::Module::materialize(self.bias),
                    ..self
                }
            }

            fn visit<V: burn::module::ModuleVisitor>(&self, visitor: &mut V) {
                let container = concat!("Struct:", stringify!($layer));
                visitor.enter_module("weight", container);
                $crate::nn::traverse::in_groups(self.groups, || {
                    burn::module::Module::visit(&self.weight, visitor);
                });
                visitor.exit_module("weight", container);
                visitor.enter_module("bias", container);
                burn::module::Module::visit(&self.bias, visitor);
                visitor.exit_module("bias", container);
            }

            fn map<M: burn::module::ModuleMapper>(self, mapper: &mut M) -> Self {
                let container = concat!("Struct:", stringify!($layer));
                mapper.enter_module("weight", container);
                let weight = burn::module::Module::map(self.weight, mapper);
                mapper.exit_module("weight", container);
                mapper.enter_module("bias", container);
                let bias = burn::module::Module::map(self.bias, mapper);
                mapper.exit_module("bias", container);
                Self {
                    weight,
                    bias,
                    ..self
                }
            }
        }

        impl burn::module::ModuleDisplayDefault for $layer {
            fn content(&self, content: burn::module::Content) -> Option<burn::module::Content> {
                content
                    .set_top_level_type(stringify!($layer))
                    .add("weight", &self.weight)
                    .add("bias", &self.bias)
                    .add_debug_attribute("stride", &self.stride)
                    .add_debug_attribute("kernel_size", &self.kernel_size)
                    .add_debug_attribute("dilation", &self.dilation)
                    .add_debug_attribute("groups", &self.groups)
                    .add_debug_attribute("padding", &self.padding)
                    .optional()
            }

            fn num_params(&self) -> usize {
                burn::module::Module::num_params(self)
            }
        }

        impl burn::module::ModuleDisplay for $layer {}

        impl core::fmt::Display for $layer {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                let text = burn::module::ModuleDisplay::format(self, Default::default());
                f.write_str(&text)
            }
        }
    };
}

pub(super) use convolution;
