-- Sums of training, too, are agreed to for one set of sites as long as the model that they start from is the same. Within the run
-- that was answered first a later round may start from it over others: which run that was. Unknown of answers from before.
ALTER TABLE secure_answers ADD COLUMN job TEXT;
ALTER TABLE secure_answers ADD COLUMN epoch INTEGER;
