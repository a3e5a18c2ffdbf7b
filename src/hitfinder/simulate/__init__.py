"""A market with a known truth, to practise on and to test statistical promises with.

Each week a batch of long-tail SKUs is launched. For 7 days every SKU gets a small test exposure over all channels and
creatives; for the next 28 days all get the same, larger traffic on the main channel with one creative, so that their
outcomes can be compared. What is planted, and what each figure rests on:

=====================  ================================================================================================
ingredient             figure, and where it is from
=====================  ================================================================================================
appeal between styles  normal part of sd 0.45 plus an exponential part of mean 0.60: a Pareto tail of index 1.67, the
                       Hill estimate over the 30 best of the items new in 2011 in UCI Online Retail (Chen 2015), their
                       first 35 days
appeal within a style  sd 0.32, so that most of the variance is between styles. Upworthy Research Archive (Matias et
                       al. 2021): 88 % of the variance of log click rates lies between tests; Online Retail: 52 % of
                       log revenue between items of one number
creatives              sd 0.23 of log click rate: the spread within a test of Upworthy, sampling noise taken out
click rates            1.7 to 2.6 % by category, then spread by appeal and by what only draws clicks. Upworthy: 2.0 %
                       overall, 0.5 to 4.9 % from the 5th to the 95th percentile, sd between tests 0.62
orders per click       1.9 % in the middle. REES46 multi-category store: 1.25 purchases per 100 product views, 0.2 to
                       2.2 by category (this market is at the upper end: with fewer orders a test of this size says
                       little); it logs more purchases than carts, so some orders skip the cart
returns                4 to 20 % of the orders by category, more for dear items; a mean wait of 13 days, cut to 7-28.
                       Online Retail: 8.6 % of the value came back, after 8 days in the median and 4 to 20 between the
                       quartiles
prices                 log-normal, sd 0.35 between styles of a category (REES46: 0.5 to 1.2, of a much wider range)
the rest               assumed, no source: favourites and carts, seasons, weekdays, trend and mood of the market,
                       delays of orders and reports, costs, stock. The constants say what each means
=====================  ================================================================================================

How hard it is, over ten markets of 30 weeks: of the three SKUs of a batch with the highest realised revenue, the true
expectation names 91 % (chance alone decides the rest), orders in the test 54 %, click rate 59 %, revenue so far 59 %,
and a hand-made mix of these with price and siblings 70 %. The best 1.5 % earn about a fifth of all revenue (Online
Retail: a quarter to a third). One unit of appeal moves the log of revenue by a bit more than 1, so the tail of
revenue is heavier than that of appeal: an index of about 1.4.

A grain of SKU x period x channel x creative can't hold a report and its revision, so a revised report is simply one
that was known late. Everything measured is filled in: no count is NULL.
"""

from hitfinder.simulate.broken import BREAKS, break_steps
from hitfinder.simulate.market import Market, cut_off, simulate, write_market

__all__ = ["BREAKS", "Market", "break_steps", "cut_off", "simulate", "write_market"]
