"""What is asked of a network: input sets, violating output conditions, VNN-LIB, datasets."""
