-- cells: what was counted of each style of a batch at the batch's look, by channel.
-- Grain: batch_id, style_id, category, channel.
-- Reads: visible, catalog, look_batches (batch_id, moment).
select
    catalog.batch_id,
    catalog.style_id,
    catalog.category,
    coalesce(visible.channel, '(none)') as channel,
    count(*) as n_rows,
    {sums}
from visible
inner join (select sku_id as the_sku, batch_id, style_id, category from catalog) as catalog
    on visible.sku_id = catalog.the_sku
inner join look_batches on catalog.batch_id = look_batches.batch_id and visible.as_of = look_batches.moment
group by catalog.batch_id, catalog.style_id, catalog.category, coalesce(visible.channel, '(none)')
order by catalog.batch_id, catalog.style_id, catalog.category, channel
