"""What results look like beside a table: fronts of accuracy and cost, and their pictures."""
