"""What a network's signals and weights are like: singular values of its Jacobian, orthogonality of its layers."""
