-- sku_channels: what was counted of each SKU on each channel at its batch's look.
-- Grain: batch_id, sku_id, channel.
-- Reads: visible, catalog, look_batches (batch_id, moment).
select
    catalog.batch_id,
    sku_id,
    coalesce(visible.channel, '(none)') as channel,
    {sums}
from visible
inner join (select sku_id as the_sku, batch_id from catalog) as catalog on visible.sku_id = catalog.the_sku
inner join look_batches on catalog.batch_id = look_batches.batch_id and visible.as_of = look_batches.moment
group by catalog.batch_id, sku_id, coalesce(visible.channel, '(none)')
order by catalog.batch_id, sku_id, channel
