"""Times ResNet-50 on several inference runtimes and compares them."""
