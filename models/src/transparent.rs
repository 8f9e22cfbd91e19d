//! Enums that as modules are what they hold.

/// Implements `Module` and its display for an enum whose variants each hold one module.
///
/// Unlike the derived implementation it adds nothing to the paths of the parameters, so a sequence
/// of such enums numbers its layers as `nn.Sequential` of PyTorch does.
macro_rules! transparent {
    ($name:ident { $($variant:ident),+ $(,)? }) => {
        impl burn::module::Module for $name {
            fn collect_devices(
                &self,
                devices: burn::module::Devices,
            ) -> burn::module::Devices {
                match self {
                    $(Self::$variant(inner) => inner.collect_devices(devices),)+
                }
            }

            fn fork(self, device: &burn::tensor::Device) -> Self {
                match self {
                    $(Self::$variant(inner) => Self::$variant(inner.fork(device)),)+
                }
            }

            fn to_device(self, device: &burn::tensor::Device) -> Self {
                match self {
                    $(Self::$variant(inner) => Self::$variant(inner.to_device(device)),)+
                }
            }

            fn train(self) -> Self {
                match self {
                    $(Self::$variant(inner) => Self::$variant(inner.train()),)+
                }
            }

            fn valid(&self) -> Self {
                match self {
                    $(Self::$variant(inner) => Self::$variant(inner.valid()),)+
                }
            }

            fn materialize(self) -> Self {
                match self {
                    $(Self::$variant(inner) => Self::$variant(inner.materialize()),)+
                }
            }

            fn visit<V: burn::module::ModuleVisitor>(&self, visitor: &mut V) {
                match self {
                    $(Self::$variant(inner) => inner.visit(visitor),)+
                }
            }

            fn map<M: burn::module::ModuleMapper>(self, mapper: &mut M) -> Self {
                match self {
                    $(Self::$variant(inner) => {
                        Self::$variant(burn::module::Module::map(inner, mapper))
                    })+
                }
            }
        }

        impl burn::module::ModuleDisplayDefault for $name {
            fn content(&self, content: burn::module::Content) -> Option<burn::module::Content> {
                match self {
                    $(Self::$variant(inner) => inner.content(content),)+
                }
            }

            fn num_params(&self) -> usize {
                burn::module::Module::num_params(self)
            }
        }

        impl burn::module::ModuleDisplay for $name {}
    };
}

pub(crate) use transparent;
