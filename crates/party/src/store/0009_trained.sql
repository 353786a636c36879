-- Sums of training, too, are agreed to for one set of sites as long as the model that they start from is the same. Within the task
-- of the run that was answered first a later round may start from it over others: which one that was, by job, epoch and name.
-- Unknown of answers from before.
ALTER TABLE secure_answers ADD COLUMN run TEXT;
